package pgsql

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	_ "time/tzdata"
)

// tables are those of the tests.
type tables map[string]*Table

func (t tables) Find(_, name string) *Table { return t[name] }

var some = tables{
	"t": {Schema: "public", Name: "t", OID: 100, Key: []int{0}, Columns: []Column{{"k", Text, true}, {"n", Numeric, false}, {"b", Bool, false}, {"at", Timestamptz, false}, {"j", JSONB, false}, {"i", Int8, false}}},
	"u": {Schema: "public", Name: "u", OID: 101, Key: []int{0}, Columns: []Column{{"k", Text, true}, {"x", Int4, false}}},
}

func translate(sql string) (*Statement, error) {
	return Translate(sql, Options{Catalog: some, Zone: time.UTC})
}

// TestTypes: what drivers are told of parameters and results.
func TestTypes(t *testing.T) {
	for _, c := range []struct {
		sql             string
		params, results []OID
	}{
		{"SELECT * FROM t WHERE k = $1 AND n > $2 AND at < $3", []OID{Text, Numeric, Timestamptz}, []OID{Text, Numeric, Bool, Timestamptz, JSONB, Int8}},
		{"SELECT count(*), sum(n), avg(i), max(at), bool_or(b), array_agg(k) FROM t", nil, []OID{Int8, Numeric, Numeric, Timestamptz, Bool, TextArray}},
		{"SELECT $1::int8 + 1, $2 || 'x', coalesce($3, 1), 1.5, 'a', NULL, now()", []OID{Int8, Text, Int4}, []OID{Int8, Text, Int4, Numeric, Text, Text, Timestamptz}},
		{"INSERT INTO t (k, n, at) VALUES ($1, $2, $3) RETURNING b", []OID{Text, Numeric, Timestamptz}, []OID{Bool}},
		{"UPDATE t SET n = $1, b = $2 WHERE k IN ($3, $4) RETURNING t.*", []OID{Numeric, Bool, Text, Text}, []OID{Text, Numeric, Bool, Timestamptz, JSONB, Int8}},
		{"SELECT k FROM t WHERE k = ANY($1) LIMIT $2 OFFSET $3", []OID{TextArray, Int8, Int8}, []OID{Text}},
		{"SELECT CASE WHEN b THEN i ELSE $1 END FROM t WHERE i BETWEEN $2 AND $3", []OID{Int8, Int8, Int8}, []OID{Int8}},
		{"WITH c AS (SELECT k, n AS m FROM t) SELECT c.m, u.x FROM c JOIN u USING (k)", nil, []OID{Numeric, Int4}},
		{"SELECT x.a, x.c FROM (SELECT i + 1 AS a, j->>'q' FROM t) AS x (a, c)", nil, []OID{Int8, Text}},
		{"SELECT k FROM t UNION ALL SELECT x::text FROM u", nil, []OID{Text}},
		{"SELECT at - interval '1 day', at - at, extract(epoch FROM at), at::date FROM t", nil, []OID{Timestamptz, Interval, Numeric, Date}},
		{"SELECT (SELECT max(x) FROM u WHERE u.k = t.k), EXISTS (SELECT 1 FROM u), row_number() OVER (ORDER BY k) FROM t", nil, []OID{Int4, Bool, Int8}},
		{"INSERT INTO t (k, n) VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET n = t.n + excluded.n + $3 WHERE t.b = $4", []OID{Text, Numeric, Numeric, Bool}, nil},
	} {
		st, err := translate(c.sql)
		if err != nil {
			t.Errorf("%s: %v", c.sql, err)
			continue
		}
		var results []OID
		for _, r := range st.Columns {
			results = append(results, r.Type)
		}
		if !slices.Equal(st.Params, c.params) || !slices.Equal(results, c.results) {
			t.Errorf("%s:\ngot  %v %v\nwant %v %v", c.sql, st.Params, results, c.params, c.results)
		}
	}
}

// TestTranslation: what becomes of an expression.
func TestTranslation(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT k FROM t WHERE k = 'a'":           `SELECT "t"."k" AS "k" FROM "public.t" AS "t" WHERE ("t"."k" = 'a')`,
		"SELECT '5'::int, -3, 1.50":               `SELECT 5 AS "int4", (-3) AS "?column?", 1.5 AS "?column?"`,
		"SELECT 1 WHERE 'a' || 1 + 2 = 'a3'":      `SELECT 1 AS "?column?" WHERE (('a' || pg_cast((1 + 2), 23, 25)) = 'a3')`,
		"SELECT n FROM t ORDER BY n DESC, k":      `SELECT "t"."n" AS "n" FROM "public.t" AS "t" ORDER BY 1 DESC NULLS FIRST, "t"."k" NULLS LAST`,
		"SELECT b FROM t WHERE b = 't'":           `SELECT "t"."b" AS "b" FROM "public.t" AS "t" WHERE ("t"."b" = 1)`,
		"SELECT 1 FROM t WHERE at > '2026-01-31'": `SELECT 1 AS "?column?" FROM "public.t" AS "t" WHERE ("t"."at" > '2026-01-31T00:00:00.000000Z')`,
		"SELECT E'\\x41\\n', $$a'b$$":             "SELECT 'A\n' AS \"?column?\", 'a''b' AS \"?column?\"",
		"select K from T /* a /* b */ c */ -- d":  `SELECT "t"."k" AS "k" FROM "public.t" AS "t"`,
		"SELECT k FROM t WHERE NOT b IS TRUE":     `SELECT "t"."k" AS "k" FROM "public.t" AS "t" WHERE (NOT ("t"."b" IS TRUE))`,
		"SELECT k ILIKE 'A%' FROM t":              `SELECT (lower("t"."k") LIKE lower('A%') ESCAPE '\') AS "?column?" FROM "public.t" AS "t"`,
		"SELECT n / 2 FROM t LIMIT ALL OFFSET 2":  `SELECT pg_fdiv("t"."n", 2) AS "?column?" FROM "public.t" AS "t" LIMIT -1 OFFSET pg_limit(2)`,
	} {
		st, err := translate(sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
		} else if st.SQL != want {
			t.Errorf("%s:\ngot  %s\nwant %s", sql, st.SQL, want)
		}
	}
}

func TestMistakes(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT":             "",
		"SELECT FROM WHERE":  SyntaxError,
		"SELECT 'a":          SyntaxError,
		"SELECT /* a":        SyntaxError,
		"SELECT 1 2":         SyntaxError,
		"SELECT (1":          SyntaxError,
		"SELECT * FROM nope": UndefinedTable,
		"SELECT nope FROM t": UndefinedColumn,
		"SELECT k FROM t, u": AmbiguousColumn,
		"SELECT 1 FROM t, t": DuplicateAlias,
		"SELECT nope(1)":     UndefinedFunction,
		"SELECT 'x'::nope":   UndefinedObject,
		"SELECT 'x'::int":    InvalidText,
		"SELECT 99999999999::int4 FROM t WHERE 'x'":                 InvalidText,
		"CREATE TABLE a (b int)":                                    FeatureNotSupported,
		"UPDATE t SET n = 1, n = 2":                                 SyntaxError,
		"INSERT INTO t (k) VALUES (1, 2)":                           SyntaxError,
		"INSERT INTO t VALUES (1), (2, 3)":                          SyntaxError,
		"INSERT INTO t (k) VALUES ('a') ON CONFLICT (n) DO NOTHING": InvalidColumnRef,
		"SELECT (SELECT 1, 2)":                                      SyntaxError,
		"VALUES (1), (1, 2)":                                        SyntaxError,
		"SELECT 1 UNION SELECT 1, 2":                                SyntaxError,
		"SELECT " + strings.Repeat("(", 5000):                       StatementTooComplex,
		"SELECT \xff":                                               CharacterNotInRange,
		"SELECT * FROM t WHERE \"K\" = 1":                           UndefinedColumn,
		"DECLARE c SCROLL CURSOR FOR SELECT 1":                      FeatureNotSupported,
		"WITH x AS (DELETE FROM t RETURNING k) SELECT * FROM x":     FeatureNotSupported,
	} {
		_, err := translate(sql)
		var e *Error
		switch {
		case want == "":
			if err != nil {
				t.Errorf("%.60s: %v", sql, err)
			}
		case !errors.As(err, &e) || e.Code != want:
			t.Errorf("%.60s: got %v, want %s", sql, err, want)
		}
	}
}

func TestSplit(t *testing.T) {
	got, err := Split("SELECT ';'; ;-- x;\n SELECT $$;$$ ; ")
	if err != nil || !slices.Equal(got, []string{"SELECT ';'", "-- x;\n SELECT $$;$$ "}) {
		t.Errorf("%q, %v", got, err)
	}
}

// TestBinary: the forms that PostgreSQL 15 gave for these values.
func TestBinary(t *testing.T) {
	for _, c := range []struct {
		typ       OID
		text, hex string
	}{
		{Numeric, "1234567.125", "0003000100000003007b11d704e2"},
		{Numeric, "-0.0001", "0001ffff400000040001"},
		{Numeric, "10000", "00010001000000000001"},
		{Numeric, "0", "0000000000000000"},
		{Numeric, "12345678901234567890.5", "000600040000000104d2162e23340d801ed21388"},
		{Int8, "-2", "fffffffffffffffe"},
		{Int4, "7", "00000007"},
		{Bool, "t", "01"},
		{Float8, "21.5", "4035800000000000"},
		{Timestamptz, "2000-01-01 00:00:01.5+00", "000000000016e360"},
		{Date, "2000-02-01", "0000001f"},
		{Bytea, `\x00ff`, "00ff"},
		{JSONB, `{"a": 1}`, "017b2261223a20317d"},
		{UUID, "00112233-4455-6677-8899-aabbccddeeff", "00112233445566778899aabbccddeeff"},
		{TextArray, "{a,NULL}", "0000000100000001000000190000000200000001" + "0000000161" + "ffffffff"},
		{Interval, "1 mon 2 days 00:00:03", "00000000002dc6c00000000200000001"},
	} {
		v, err := ParseText(c.text, c.typ, time.UTC)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		b, err := AppendBinary(nil, v, c.typ)
		back, err2 := ParseBinary(b, c.typ)
		if err != nil || err2 != nil {
			t.Errorf("%s: %v, %v", c.text, err, err2)
			continue
		}
		if hex.EncodeToString(b) != c.hex {
			t.Errorf("%s: got %x, want %s", c.text, b, c.hex)
		}
		if got := string(AppendText(nil, back, c.typ, time.UTC)); got != c.text {
			t.Errorf("%s came back as %s", c.text, got)
		}
	}
}

func TestTimes(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		"2026-07-01 12:00":                 "2026-07-01 12:00:00+02",
		"2026-01-31T12:00:00Z":             "2026-01-31 13:00:00+01",
		"2026-01-31 12:00:00.123456789+00": "2026-01-31 13:00:00.123457+01",
		"epoch":                            "1970-01-01 01:00:00+01",
		"2026-01-31":                       "2026-01-31 00:00:00+01",
	} {
		v, err := ParseText(in, Timestamptz, zone)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if got := string(AppendText(nil, v, Timestamptz, zone)); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"1 day": "1 day", "90 minutes": "01:30:00", "1 year 2 months": "1 year 2 mons", "-1 hour": "-01:00:00", "1.5 days": "1 day 12:00:00", "2 days ago": "-2 days", "01:02:03.5": "01:02:03.5",
	} {
		v, err := ParseText(in, Interval, nil)
		if err != nil || v.Str != want {
			t.Errorf("%s: got %s, want %s (%v)", in, v.Str, want, err)
		}
	}
}

// FuzzTranslate: whatever comes is translated or refused, and translating is not touched by white space and comments.
func FuzzTranslate(f *testing.F) {
	tour, err := os.ReadFile("../../../gateway/testdata/sql/tour.sql")
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.SplitSeq(string(tour), "\n") {
		if s, ok := strings.CutSuffix(line, ";"); ok {
			f.Add(s)
		}
	}
	for _, s := range []string{"SELECT $1::int FROM t", "SELECT a.b.c", "COPY t (k) FROM STDIN", "FETCH ALL c", "SET a TO b", "SELECT x[1]::text", "UPDATE t SET (k, n) = ('a', 1) FROM u"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		st, err := translate(sql)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || len(e.Code) != 5 {
				t.Fatalf("%q: %v", sql, err)
			}
			return
		}
		again, err := translate("/* x */ " + sql)
		if err != nil || again.SQL != st.SQL || again.Kind != st.Kind || !slices.Equal(again.Params, st.Params) {
			t.Fatalf("%q: %q became %q (%v)", sql, st.SQL, again.SQL, err)
		}
		if strings.ContainsRune(st.SQL+st.Returning+st.Conflict.SQL, 0) {
			t.Fatalf("%q: a zero in %q", sql, st.SQL)
		}
	})
}

// FuzzValues: what a client sends is refused, or comes back as the same value in each form.
func FuzzValues(f *testing.F) {
	for i := range Types {
		f.Add(uint32(Types[i].OID), []byte("2026-01-31 12:00:00"))
		f.Add(uint32(Types[i].OID), []byte("1.50"))
		f.Add(uint32(Types[i].OID), []byte{0, 0, 0, 1, 0, 0, 0, 0})
	}
	f.Fuzz(func(t *testing.T, o uint32, raw []byte) {
		typ := TypeOf(OID(o)).OID
		for _, read := range []func() (Value, error){
			func() (Value, error) { return ParseText(string(raw), typ, time.UTC) },
			func() (Value, error) { return ParseBinary(raw, typ) },
		} {
			v, err := read()
			if err != nil || isArray(typ) {
				continue
			}
			text := AppendText(nil, v, typ, time.UTC)
			back, err := ParseText(string(text), typ, time.UTC)
			if err != nil {
				if typ == Numeric || typ == Float8 || typ == Float4 || typ == Timestamp || typ == Timestamptz || typ == Date || typ == Time || typ == Interval {
					continue // infinities, years before the first: shown, and not taken
				}
				t.Fatalf("%s %q: %v", TypeOf(typ).Name, text, err)
			}
			if got := AppendText(nil, back, typ, time.UTC); !bytes.Equal(got, text) {
				t.Fatalf("%s: %q came back as %q", TypeOf(typ).Name, text, got)
			}
			if b, err := AppendBinary(nil, v, typ); err == nil {
				if again, err := ParseBinary(b, typ); err == nil && !bytes.Equal(AppendText(nil, again, typ, time.UTC), text) && typ != Float4 {
					t.Fatalf("%s: %q is %q in binary", TypeOf(typ).Name, text, AppendText(nil, again, typ, time.UTC))
				}
			}
		}
	})
}
