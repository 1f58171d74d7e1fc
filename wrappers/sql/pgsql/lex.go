// Package pgsql is PostgreSQL's SQL as far as the virtual server speaks it: tokens, statements and what they are in SQLite's
// words, the types of their results and parameters, and values in PostgreSQL's text and binary forms. It does no I/O.
package pgsql

import (
	"strings"
	"unicode/utf8"
)

// A kind of token.
type kind uint8

const (
	endToken kind = iota
	identToken
	quotedToken // "Ident"
	stringToken // its text without quotes and escapes
	numberToken
	paramToken // $1
	opToken    // an operator, or one of ( ) [ ] , ; . :
	bitToken   // B'…', X'…'
)

type token struct {
	kind kind
	text string // idents in lower case, strings as what they say
	pos  int    // byte in the statement
	end  int
	n    int // of a parameter
}

// is tells whether the token is this keyword or operator.
func (t *token) is(s string) bool {
	return t.text == s && (t.kind == identToken || t.kind == opToken)
}

const (
	maxTokens = 1 << 20
	selfOps   = "()[],;."
	opChars   = "+-*/<>=~!@#%^&|`?"
)

// lex splits text into tokens (PostgreSQL, section 4.1). The last one is an endToken.
func lex(sql string) ([]token, error) {
	if !utf8.ValidString(sql) {
		return nil, Errorf(CharacterNotInRange, "invalid byte sequence for encoding \"UTF8\"")
	}
	toks := make([]token, 0, 16+len(sql)/6)
	l := lexer{sql: sql}
	for {
		t, err := l.next()
		if err != nil {
			return nil, err
		}
		toks = append(toks, t)
		if t.kind == endToken {
			return toks, nil
		}
		if len(toks) > maxTokens {
			return nil, Errorf(StatementTooComplex, "the statement is too long")
		}
	}
}

type lexer struct {
	sql string
	at  int
}

func (l *lexer) fail(at int, what string) error {
	e := Errorf(SyntaxError, "%s at or near \"%s\"", what, clip(l.sql[at:]))
	e.Position = utf8.RuneCountInString(l.sql[:at]) + 1
	return e
}

func clip(s string) string {
	if i := strings.IndexAny(s, " \t\r\n;"); i > 0 {
		s = s[:i]
	}
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "")
	}
	return s
}

// space skips white space and comments, which nest.
func (l *lexer) space() error {
	s := l.sql
	for l.at < len(s) {
		switch c := s[l.at]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			l.at++
		case strings.HasPrefix(s[l.at:], "--"):
			if i := strings.IndexByte(s[l.at:], '\n'); i >= 0 {
				l.at += i + 1
			} else {
				l.at = len(s)
			}
		case strings.HasPrefix(s[l.at:], "/*"):
			begin, depth := l.at, 0
			for {
				switch {
				case l.at >= len(s):
					return l.fail(begin, "unterminated /* comment")
				case strings.HasPrefix(s[l.at:], "/*"):
					depth++
					l.at += 2
				case strings.HasPrefix(s[l.at:], "*/"):
					depth--
					l.at += 2
				default:
					l.at++
				}
				if depth == 0 {
					break
				}
			}
		default:
			return nil
		}
	}
	return nil
}

func identStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func identPart(c byte) bool { return identStart(c) || digit(c) || c == '$' }

func (l *lexer) next() (token, error) {
	if err := l.space(); err != nil {
		return token{}, err
	}
	s, at := l.sql, l.at
	if at >= len(s) {
		return token{kind: endToken, pos: at, end: at}, nil
	}
	c := s[at]
	quote := at+1 < len(s) && s[at+1] == '\''
	switch {
	case (c == 'e' || c == 'E') && quote:
		l.at++
		return l.escaped(at)
	case (c == 'n' || c == 'N') && quote:
		l.at++
		return l.quoted(at)
	case (c == 'b' || c == 'B' || c == 'x' || c == 'X') && quote:
		l.at++
		t, err := l.quoted(at)
		t.kind = bitToken
		return t, err
	case (c == 'u' || c == 'U') && at+2 < len(s) && s[at+1] == '&' && (s[at+2] == '\'' || s[at+2] == '"'):
		return token{}, unsupported("U& escapes")
	case c == '\'':
		return l.quoted(at)
	case c == '"':
		return l.delimited(at)
	case identStart(c):
		for l.at < len(s) && identPart(s[l.at]) {
			l.at++
		}
		return token{kind: identToken, text: strings.ToLower(s[at:l.at]), pos: at, end: l.at}, nil
	case digit(c) || c == '.' && at+1 < len(s) && digit(s[at+1]):
		return l.number(at)
	case c == '$':
		return l.dollar(at)
	case c == ':':
		l.at++
		if l.at < len(s) && (s[l.at] == ':' || s[l.at] == '=') {
			l.at++
		}
	case strings.IndexByte(selfOps, c) >= 0:
		l.at++
	case strings.IndexByte(opChars, c) >= 0:
		l.op()
	default:
		return token{}, l.fail(at, "syntax error")
	}
	return token{kind: opToken, text: s[at:l.at], pos: at, end: l.at}, nil
}

// op reads an operator: the longest run of its characters that begins no comment, without trailing + or - unless it
// holds a character that no SQL operator has (section 4.1.3).
func (l *lexer) op() {
	s, at := l.sql, l.at
	for l.at < len(s) && strings.IndexByte(opChars, s[l.at]) >= 0 {
		if l.at > at && (strings.HasPrefix(s[l.at:], "--") || strings.HasPrefix(s[l.at:], "/*")) {
			break
		}
		l.at++
	}
	op := s[at:l.at]
	for len(op) > 1 && (op[len(op)-1] == '+' || op[len(op)-1] == '-') && !strings.ContainsAny(op[:len(op)-1], "~!@#%^&|`?") {
		op = op[:len(op)-1]
	}
	l.at = at + len(op)
}

// quoted reads '…' from the quote on.
func (l *lexer) quoted(begin int) (token, error) {
	text, ok := l.between('\'')
	switch {
	case !ok:
		return token{}, l.fail(begin, "unterminated quoted string")
	case strings.IndexByte(text, 0) >= 0:
		return token{}, Errorf(CharacterNotInRange, "invalid byte sequence for encoding \"UTF8\": 0x00")
	}
	return token{kind: stringToken, text: text, pos: begin, end: l.at}, nil
}

// between reads what stands between two of a quote, from the first one on; a doubled one stands for itself. False: there is no
// second one.
func (l *lexer) between(quote byte) (string, bool) {
	var b strings.Builder
	l.at++
	for {
		i := strings.IndexByte(l.sql[l.at:], quote)
		if i < 0 {
			return "", false
		}
		b.WriteString(l.sql[l.at : l.at+i])
		l.at += i + 1
		if l.at == len(l.sql) || l.sql[l.at] != quote {
			return b.String(), true
		}
		b.WriteByte(quote)
		l.at++
	}
}

// escaped reads the string of E'…' (section 4.1.2.2).
func (l *lexer) escaped(begin int) (token, error) {
	var b strings.Builder
	s := l.sql
	l.at++
	for {
		if l.at >= len(s) {
			return token{}, l.fail(begin, "unterminated quoted string")
		}
		c := s[l.at]
		l.at++
		switch {
		case c == '\'' && l.at < len(s) && s[l.at] == '\'':
			b.WriteByte('\'')
			l.at++
		case c == '\'':
			text := b.String()
			if !utf8.ValidString(text) || strings.IndexByte(text, 0) >= 0 {
				return token{}, Errorf(CharacterNotInRange, "invalid byte sequence for encoding \"UTF8\"")
			}
			return token{kind: stringToken, text: text, pos: begin, end: l.at}, nil
		case c != '\\':
			b.WriteByte(c)
		case l.at >= len(s):
			return token{}, l.fail(begin, "unterminated quoted string")
		default:
			c = s[l.at]
			l.at++
			switch c {
			case 'b':
				b.WriteByte('\b')
			case 'f':
				b.WriteByte('\f')
			case 'n':
				b.WriteByte('\n')
			case 'r':
				b.WriteByte('\r')
			case 't':
				b.WriteByte('\t')
			case 'x':
				n, k := l.digits(16, 2)
				if k == 0 {
					b.WriteByte('x')
				} else {
					b.WriteByte(byte(n))
				}
			case 'u', 'U':
				most := 4
				if c == 'U' {
					most = 8
				}
				n, k := l.digits(16, most)
				if k != most || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
					return token{}, Errorf(InvalidEscape, "invalid Unicode escape")
				}
				b.WriteRune(rune(n))
			case '0', '1', '2', '3', '4', '5', '6', '7':
				l.at--
				n, _ := l.digits(8, 3)
				b.WriteByte(byte(n))
			default:
				b.WriteByte(c)
			}
		}
	}
}

// digits reads at most so many digits of a base.
func (l *lexer) digits(base, most int) (n, count int) {
	for count < most && l.at < len(l.sql) {
		d := 0
		switch c := l.sql[l.at]; {
		case digit(c):
			d = int(c - '0')
		case c >= 'a' && c <= 'f':
			d = int(c-'a') + 10
		case c >= 'A' && c <= 'F':
			d = int(c-'A') + 10
		default:
			return n, count
		}
		if d >= base {
			return n, count
		}
		n = n*base + d
		count++
		l.at++
	}
	return n, count
}

// delimited reads "…".
func (l *lexer) delimited(begin int) (token, error) {
	text, ok := l.between('"')
	switch {
	case !ok:
		return token{}, l.fail(begin, "unterminated quoted identifier")
	case text == "" || strings.IndexByte(text, 0) >= 0:
		return token{}, l.fail(begin, "zero-length delimited identifier")
	}
	return token{kind: quotedToken, text: text, pos: begin, end: l.at}, nil
}

func (l *lexer) number(begin int) (token, error) {
	s := l.sql
	for l.at < len(s) && digit(s[l.at]) {
		l.at++
	}
	if l.at < len(s) && s[l.at] == '.' && !strings.HasPrefix(s[l.at:], "..") {
		l.at++
		for l.at < len(s) && digit(s[l.at]) {
			l.at++
		}
	}
	if l.at < len(s) && (s[l.at] == 'e' || s[l.at] == 'E') {
		i := l.at + 1
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if i < len(s) && digit(s[i]) {
			for i < len(s) && digit(s[i]) {
				i++
			}
			l.at = i
		}
	}
	if l.at < len(s) && identStart(s[l.at]) {
		return token{}, l.fail(begin, "trailing junk after numeric literal")
	}
	return token{kind: numberToken, text: s[begin:l.at], pos: begin, end: l.at}, nil
}

// dollar reads $1 or $tag$…$tag$.
func (l *lexer) dollar(begin int) (token, error) {
	s := l.sql
	i := begin + 1
	if i < len(s) && digit(s[i]) {
		n := 0
		for i < len(s) && digit(s[i]) {
			if n = n*10 + int(s[i]-'0'); n > maxParams {
				return token{}, Errorf(UndefinedParameter, "there is no parameter %s", clip(s[begin:]))
			}
			i++
		}
		if n == 0 {
			return token{}, Errorf(UndefinedParameter, "there is no parameter $0")
		}
		l.at = i
		return token{kind: paramToken, text: s[begin:i], n: n, pos: begin, end: i}, nil
	}
	for i < len(s) && s[i] != '$' && identPart(s[i]) {
		i++
	}
	if i >= len(s) || s[i] != '$' {
		return token{}, l.fail(begin, "syntax error")
	}
	tag := s[begin : i+1]
	end := strings.Index(s[i+1:], tag)
	if end < 0 {
		return token{}, l.fail(begin, "unterminated dollar-quoted string")
	}
	l.at = i + 1 + end + len(tag)
	return token{kind: stringToken, text: s[i+1 : i+1+end], pos: begin, end: l.at}, nil
}

// maxParams is how many parameters a statement may have: the protocol counts them in 16 bits, and rows take some.
const maxParams = 16000

// Split cuts the text of a simple query into its statements; empty ones are left out.
func Split(sql string) ([]string, error) {
	toks, err := lex(sql)
	if err != nil {
		return nil, err
	}
	var out []string
	begin, some := 0, false
	for i := range toks {
		t := &toks[i]
		switch {
		case t.kind == endToken:
			if some {
				out = append(out, sql[begin:])
			}
		case t.is(";"):
			if some {
				out = append(out, sql[begin:t.pos])
			}
			begin, some = t.end, false
		default:
			some = true
		}
	}
	return out, nil
}
