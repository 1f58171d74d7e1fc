package sql

import (
	"bytes"
	"context"

	"github.com/jackc/pgx/v5/pgconn"
)

// With capture = "sync" a success waits if something was written. Nearly always the command's tag says whether that is so;
// but a SELECT may call a function that writes, or have a WITH that does, an EXECUTE may be of either, and an EXPLAIN ANALYZE
// runs what it explains. Those are waited for as well, if their text leaves a doubt: it calls a function that is not known to
// write nothing.

// harmless are the names of functions that write no rows: the server's own, and those of extensions that are not volatile, which
// the server keeps from writing. What stands before a parenthesis in SQL without being called is among them.
type harmless map[string]struct{}

// writers are functions of the server's own that run statements they are given.
const writers = "'query_to_xml', 'query_to_xmlschema', 'query_to_xml_and_xmlschema'"

// readHarmless asks the server. Neither its own functions nor those of an extension change while it runs, as a rule; users' own
// functions may, so that none of them is taken for harmless.
func readHarmless(ctx context.Context, c *pgconn.PgConn) (harmless, error) {
	rows, err := query(ctx, c, `SELECT p.proname FROM pg_catalog.pg_proc p
		LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
		GROUP BY p.proname HAVING bool_and(p.oid < 16384 OR d.objid IS NOT NULL AND p.provolatile <> 'v') AND p.proname NOT IN (`+writers+`)
		UNION SELECT word FROM pg_catalog.pg_get_keywords() WHERE catcode IN ('R', 'C', 'T')`)
	if err != nil {
		return nil, err
	}
	out := make(harmless, len(rows)+8)
	for _, word := range [...]string{"by", "sets", "rollup", "cube", "materialized", "over", "filter"} { // names could be made of them, too
		out[word] = struct{}{}
	}
	for _, r := range rows {
		out[r[0].text] = struct{}{}
	}
	return out, nil
}

// mostName is the length of PostgreSQL's names (NAMEDATALEN - 1).
const mostName = 63

// doubts tells whether a statement may write something that its tag does not tell. It allocates nothing. What stands in
// quotes and comments is read as if it stood outside: that costs a wait, and no write.
func (k harmless) doubts(text []byte) bool {
	var before [mostName]byte // the last word, in lower case
	last := before[:0]
	for i := 0; i < len(text); {
		if !isWord(text[i]) {
			if text[i] == '(' && k.calls(text[:i]) {
				return true
			}
			i++
			continue
		}
		from := i
		for i < len(text) && isWord(text[i]) {
			i++
		}
		word := lowered(&before, text[from:i], last)
		switch string(word.now) {
		case "insert", "delete", "merge", "execute", "analyze", "analyse", "call":
			return true
		case "update":
			if !word.locks {
				return true
			}
		}
		last = word.now
	}
	return false
}

type lookedAt struct {
	now   []byte
	locks bool // the word before it makes FOR UPDATE, or FOR NO KEY UPDATE, of it
}

// lowered puts a word in small letters where the last one stood.
func lowered(buf *[mostName]byte, word, last []byte) lookedAt {
	locks := string(last) == "for" || string(last) == "key"
	n := min(len(word), mostName)
	for i := range n {
		c := word[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	return lookedAt{buf[:n], locks}
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

// calls tells whether a text that stands before a parenthesis ends with the name of a function that may write.
func (k harmless) calls(text []byte) bool {
	text = bytes.TrimRight(text, " \t\r\n\f\v")
	if n := len(text); n > 0 && (text[n-1] == '"' || text[n-1] == '/') {
		return true // a quoted name, or a comment behind one
	}
	from := len(text)
	for from > 0 && isWord(text[from-1]) {
		from--
	}
	word := text[from:]
	if len(word) == 0 || word[0] >= '0' && word[0] <= '9' {
		return false
	}
	rest := bytes.TrimRight(text[:from], " \t\r\n\f\v")
	if n := len(rest); n > 0 {
		switch rest[n-1] {
		case ')':
			return false // count(*) OVER (…)
		case '.':
			const own = "pg_catalog."
			if n < len(own) || !bytes.EqualFold(rest[n-len(own):], []byte(own)) {
				return true
			}
		}
	}
	var buf [mostName]byte
	_, known := k[string(lowered(&buf, word, nil).now)]
	return !known
}
