package virtual

import (
	"crypto/md5" // of md5(), which is no protection of anything
	"encoding/base64"
	"encoding/hex"
	"math"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// textFunctions are those of texts, bytes and patterns.
var textFunctions = []builtin{
	{"lower", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return text(strings.ToLower(str(a[0]))) }},
	{"upper", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return text(strings.ToUpper(str(a[0]))) }},
	{"pg_initcap", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		inside := false
		return text(strings.Map(func(r rune) rune {
			letter := unicode.IsLetter(r) || unicode.IsDigit(r)
			if !letter {
				inside = false
				return r
			}
			if inside {
				return unicode.ToLower(r)
			}
			inside = true
			return unicode.ToUpper(r)
		}, str(a[0])))
	}},
	{"pg_substr", -1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		from, n := a[1].Int, int64(math.MaxInt32)
		if len(a) > 2 {
			if n = a[2].Int; n < 0 {
				return a[0], pgsql.Errorf("22011", "negative substring length not allowed")
			}
		}
		to := min(from, math.MaxInt32) + n
		if a[0].Kind == pgsql.Blob {
			lo, hi := clamp(from-1, len(a[0].Str)), clamp(to-1, len(a[0].Str))
			return pgsql.BlobValue([]byte(a[0].Str[lo:max(lo, hi)])), nil
		}
		rs := []rune(str(a[0]))
		lo, hi := clamp(from-1, len(rs)), clamp(to-1, len(rs))
		return text(string(rs[lo:max(lo, hi)]))
	}},
	{"pg_left", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		rs := []rune(str(a[0]))
		n := a[1].Int
		if n < 0 {
			n += int64(len(rs))
		}
		return text(string(rs[:clamp(n, len(rs))]))
	}},
	{"pg_right", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		rs := []rune(str(a[0]))
		n := a[1].Int
		if n < 0 {
			n += int64(len(rs))
		}
		return text(string(rs[len(rs)-clamp(n, len(rs)):]))
	}},
	{"pg_lpad", -1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return pad(a, true) }},
	{"pg_rpad", -1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return pad(a, false) }},
	{"pg_repeat", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		s, n := str(a[0]), max(a[1].Int, 0)
		if len(s) > 0 && n > int64(mostText/len(s)) {
			return a[0], errTooLong
		}
		return text(strings.Repeat(s, int(n)))
	}},
	{"pg_reverse", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		rs := []rune(str(a[0]))
		for i, j := 0, len(rs)-1; i < j; i, j = i+1, j-1 {
			rs[i], rs[j] = rs[j], rs[i]
		}
		return text(string(rs))
	}},
	{"pg_split_part", 3, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		parts := []string{str(a[0])}
		if sep := str(a[1]); sep != "" {
			parts = strings.Split(parts[0], sep)
		}
		n := a[2].Int
		if n == 0 {
			return a[0], pgsql.Errorf("22023", "field position must not be zero")
		}
		if n < 0 {
			n += int64(len(parts)) + 1
		}
		if n < 1 || n > int64(len(parts)) {
			return text("")
		}
		return text(parts[n-1])
	}},
	{"pg_starts_with", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		return yes(strings.HasPrefix(str(a[0]), str(a[1])))
	}},
	{"pg_concat", -1, false, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		var b []byte
		for i := 0; i+1 < len(a); i += 2 {
			if !a[i].IsNull() {
				b = pgsql.AppendText(b, a[i], oid(a[i+1]), r.zone())
			}
		}
		return text(string(b))
	}},
	{"pg_concat_ws", -1, false, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		if a[0].IsNull() {
			return pgsql.Value{}, nil
		}
		var parts []string
		for i := 2; i+1 < len(a); i += 2 {
			if !a[i].IsNull() {
				parts = append(parts, string(pgsql.AppendText(nil, a[i], oid(a[i+1]), r.zone())))
			}
		}
		return text(strings.Join(parts, str(a[0])))
	}},
	{"pg_translate", 3, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		from, to := []rune(str(a[1])), []rune(str(a[2]))
		return text(strings.Map(func(r rune) rune {
			for i, f := range from {
				if f == r {
					if i < len(to) {
						return to[i]
					}
					return -1
				}
			}
			return r
		}, str(a[0])))
	}},
	{"pg_md5", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		sum := md5.Sum([]byte(str(a[0])))
		return text(hex.EncodeToString(sum[:]))
	}},
	{"pg_encode", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		switch strings.ToLower(a[1].Str) {
		case "hex":
			return text(hex.EncodeToString([]byte(a[0].Str)))
		case "base64":
			return text(base64.StdEncoding.EncodeToString([]byte(a[0].Str)))
		}
		return a[0], pgsql.Errorf("22023", "unrecognized encoding: \"%s\"", a[1].Str)
	}},
	{"pg_decode", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		var b []byte
		var err error
		switch strings.ToLower(a[1].Str) {
		case "hex":
			b, err = hex.DecodeString(a[0].Str)
		case "base64":
			b, err = base64.StdEncoding.DecodeString(a[0].Str)
		default:
			return a[0], pgsql.Errorf("22023", "unrecognized encoding: \"%s\"", a[1].Str)
		}
		if err != nil {
			return a[0], pgsql.Errorf("22023", "invalid %s data", a[1].Str)
		}
		return pgsql.BlobValue(b), nil
	}},
	{"pg_quote_ident", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return text(pgsql.QuoteIdent(str(a[0]))) }},
	{"pg_quote_literal", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return text(pgsql.QuoteLiteral(str(a[0]))) }},
	{"pg_regexp", 2, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return matches(r, a, "", false) }},
	{"pg_regexp_i", 2, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return matches(r, a, "(?i)", false) }},
	{"pg_regexp_not", 2, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return matches(r, a, "", true) }},
	{"pg_regexp_not_i", 2, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return matches(r, a, "(?i)", true) }},
	{"pg_substring", 2, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		re, err := r.regexp(str(a[1]))
		if err != nil {
			return a[0], err
		}
		m := re.FindStringSubmatch(str(a[0]))
		switch {
		case m == nil:
			return pgsql.Value{}, nil
		case len(m) > 1:
			return text(m[1])
		}
		return text(m[0])
	}},
	{"pg_regexp_replace", -1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		flags := ""
		if len(a) > 3 {
			flags = str(a[3])
		}
		pattern := str(a[1])
		if strings.Contains(flags, "i") {
			pattern = "(?i)" + pattern
		}
		re, err := r.regexp(pattern)
		if err != nil {
			return a[0], err
		}
		with := regexp.MustCompile(`\\([0-9&])`).ReplaceAllStringFunc(strings.ReplaceAll(str(a[2]), "$", "$$"), func(m string) string {
			if m[1] == '&' {
				return "${0}"
			}
			return "${" + m[1:] + "}"
		})
		if strings.Contains(flags, "g") {
			return text(re.ReplaceAllString(str(a[0]), with))
		}
		s := str(a[0])
		at := re.FindStringSubmatchIndex(s)
		if at == nil {
			return text(s)
		}
		return text(s[:at[0]] + string(re.ExpandString(nil, with, s, at)) + s[at[1]:])
	}},

	// Times.
}

func pad(a []pgsql.Value, left bool) (pgsql.Value, error) {
	rs, n, fill := []rune(str(a[0])), max(a[1].Int, 0), []rune(" ")
	if len(a) > 2 {
		fill = []rune(str(a[2]))
	}
	if n > mostText/utf8.UTFMax {
		return a[0], errTooLong
	}
	if int(n) <= len(rs) {
		return text(string(rs[:n]))
	}
	if len(fill) == 0 {
		return text(string(rs))
	}
	padding := make([]rune, int(n)-len(rs))
	for i := range padding {
		padding[i] = fill[i%len(fill)]
	}
	if left {
		return text(string(padding) + string(rs))
	}
	return text(string(rs) + string(padding))
}

func matches(r *run, a []pgsql.Value, prefix string, not bool) (pgsql.Value, error) {
	re, err := r.regexp(prefix + str(a[1]))
	if err != nil {
		return a[0], err
	}
	return yes(re.MatchString(str(a[0])) != not)
}

// regexp compiles a pattern, and keeps the last ones.
func (r *run) regexp(pattern string) (*regexp.Regexp, error) {
	if re := r.session.regexps[pattern]; re != nil {
		return re, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, pgsql.Errorf("2201B", "invalid regular expression: %v", err)
	}
	if r.session.regexps == nil || len(r.session.regexps) > 32 {
		r.session.regexps = map[string]*regexp.Regexp{}
	}
	r.session.regexps[pattern] = re
	return re, nil
}
