package schema

import (
	"slices"
	"strings"
)

// SplitOptions takes an attribute description apart (RFC 4512, section 2.5): the type, and the options in lower case, sorted,
// each once; nil without.
func SplitOptions(description string) (name string, options []string) {
	name, rest, found := strings.Cut(description, ";")
	if !found {
		return name, nil
	}
	options = strings.Split(strings.ToLower(rest), ";")
	slices.Sort(options)
	return name, slices.Compact(options)
}

// HasOptions tells whether have has all of want: a description with more options is a subtype of one with fewer (section
// 2.5.2). An option of want that ends with "-" stands for all that begin so (RFC 3866, section 2.1).
func HasOptions(have, want []string) bool {
	for _, w := range want {
		if strings.HasSuffix(w, "-") && slices.ContainsFunc(have, func(h string) bool { return strings.HasPrefix(h, w) }) {
			continue
		}
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}
