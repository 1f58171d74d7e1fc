package diag

import (
	"regexp"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// A slip is a form of another language that HCL's own message does not recognise.
type slip struct {
	at     *regexp.Regexp // of the text from where HCL stumbled to the line's end
	before *regexp.Regexp // of the text before; nil: any
	remedy string
}

var slips = []slip{
	{regexp.MustCompile(`^\(`), regexp.MustCompile(`\.\w+$`), "HCL has functions and no methods: upper(payload.name), not payload.name.upper()."},
	{regexp.MustCompile(`^\?|^\|`), nil, "Where something may be missing write try(payload.x, 0); a condition is a ? b : c, and \"or\" is ||."},
	{regexp.MustCompile(`^\$?\.`), nil, "A member of the payload is payload.name."},
	{regexp.MustCompile(`^=`), regexp.MustCompile(`[=!]=$`), "HCL compares with == and !=."},
	{regexp.MustCompile("^`"), nil, `A text stands in double quotes, also with values in it: "oven-${x}".`},
	{regexp.MustCompile(`^'`), nil, ""},
	{regexp.MustCompile(`^(and|or|not)\b`), nil, "Conditions are joined with && and ||, and turned round with !."},
	{regexp.MustCompile(`^\S`), regexp.MustCompile(`=\s*if\s+$`), "A condition is written a ? b : c."},
	{regexp.MustCompile(`^root\b|^this\b`), nil, "What a bind gives is written as map, in or out: `in = { name = payload.name }`."},
	{regexp.MustCompile(`^\}`), regexp.MustCompile(`^\s*$`), "There is one } too many, here or above."},
	{regexp.MustCompile(`^\w+\s*==`), nil, "One equals sign sets an argument, two compare."},
}

// remedy says what to write instead of a slip; "" if it is none that is known.
func (l *Log) remedy(r hcl.Range) string {
	src := l.files[r.Filename]
	at := r.Start.Byte
	if r.Filename == "" || at < 0 || at > len(src) {
		return ""
	}
	from := strings.LastIndexByte(string(src[:at]), '\n') + 1
	rest, _, _ := strings.Cut(string(src[at:]), "\n")
	for _, s := range slips {
		if s.at.MatchString(rest) && (s.before == nil || s.before.Match(src[from:at])) {
			return s.remedy
		}
	}
	return ""
}

// evaluated adds to HCL's message of an expression what it means here.
func evaluated(detail string) string {
	switch {
	case strings.Contains(detail, "operand: a number is required"):
		return ` Operators are of numbers: texts are put together in one, "${a}${b}", and a text becomes a number by number(…).`
	case strings.Contains(detail, "primitive-typed value"):
		return " It has no members: with the codecs text, number and bytes the payload is one value."
	}
	return ""
}
