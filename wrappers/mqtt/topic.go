package mqtt

import (
	"strings"
	"unicode/utf8"

	"github.com/spooksystems/gateway/wrappers"
)

// maxLevels bounds the depth of the topic tree that a peer's filter can make.
const maxLevels = 128

// checkTopic tells what is wrong with a topic name (MQTT 5.0, section 4.7).
func checkTopic(topic []byte) error {
	if len(topic) == 0 {
		return &protocolError{codeBadTopic, "an empty topic"}
	}
	if !validString(topic) {
		return malformed("a topic that is not UTF-8")
	}
	levels := 1
	for _, c := range topic {
		switch c {
		case '+', '#':
			return &protocolError{codeBadTopic, "a wildcard in a topic name"}
		case '/':
			levels++
		}
	}
	if levels > maxLevels {
		return &protocolError{codeBadTopic, "a topic of too many levels"}
	}
	return nil
}

// canonicalTopic is the form of addresses and of the literal text in templates: topics have one
// form only, so it just says what is wrong.
func canonicalTopic(topic string) (string, error) {
	switch {
	case len(topic) > 65535:
		return "", wrappers.Refuse(wrappers.ErrTooLarge, "a topic of more than 65535 bytes")
	case !utf8.ValidString(topic) || strings.ContainsRune(topic, 0):
		return "", wrappers.Refuse(wrappers.ErrInvalid, "a topic that is not UTF-8 or holds a NUL")
	case strings.ContainsAny(topic, "+#"):
		return "", wrappers.Refuse(wrappers.ErrInvalid, "a topic name can't hold '+' or '#': a template captures with {name} and {name...}")
	case strings.Count(topic, "/") >= maxLevels:
		return "", wrappers.Refuse(wrappers.ErrInvalid, "a topic of too many levels")
	}
	return topic, nil
}

// splitFilter takes a subscription's filter apart: group is the share name, "" for none.
func splitFilter(filter string) (group, rest string, err error) {
	if after, ok := strings.CutPrefix(filter, "$share/"); ok {
		group, rest, ok = strings.Cut(after, "/")
		if !ok || group == "" || strings.ContainsAny(group, "+#") {
			return "", "", &protocolError{codeBadFilter, "a shared subscription without a name or a filter"}
		}
	} else {
		rest = filter
	}
	if rest == "" {
		return "", "", &protocolError{codeBadFilter, "an empty filter"}
	}
	if strings.Count(rest, "/") >= maxLevels {
		return "", "", &protocolError{codeBadFilter, "a filter of too many levels"}
	}
	for level := range strings.SplitSeq(rest, "/") {
		if strings.ContainsAny(level, "+#") && len(level) > 1 {
			return "", "", &protocolError{codeBadFilter, "a wildcard must be alone in its level"}
		}
	}
	if i := strings.IndexByte(rest, '#'); i >= 0 && i != len(rest)-1 {
		return "", "", &protocolError{codeBadFilter, "'#' must be the last level"}
	}
	return group, rest, nil
}

// filterMatches tells whether filter selects topic; both are well-formed. A filter that begins
// with a wildcard does not select topics that begin with '$' (MQTT 5.0, section 4.7.2).
func filterMatches(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (strings.HasPrefix(filter, "+") || strings.HasPrefix(filter, "#")) {
		return false
	}
	for {
		f, frest, fmore := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, trest, tmore := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if !fmore || !tmore {
			return fmore == tmore || fmore && frest == "#"
		}
		filter, topic = frest, trest
	}
}

// filterMeets tells whether some topic is selected by filter and produced by the pattern.
func filterMeets(filter string, pattern []wrappers.Segment) bool {
	levels := strings.Split(filter, "/")
	if len(pattern) > 0 && pattern[0].Kind == wrappers.LiteralSegment && strings.HasPrefix(pattern[0].Literal, "$") &&
		(levels[0] == "+" || levels[0] == "#") {
		return false
	}
	return meets(levels, pattern)
}

func meets(levels []string, pattern []wrappers.Segment) bool {
	for {
		if len(levels) > 0 && levels[0] == "#" {
			return true
		}
		if len(levels) == 0 || len(pattern) == 0 {
			return len(levels) == 0 && len(pattern) == 0
		}
		switch pattern[0].Kind {
		case wrappers.RestSegments:
			for n := 1; n <= len(levels); n++ {
				if levels[n-1] == "#" || meets(levels[n:], pattern[1:]) {
					return true
				}
			}
			return false
		case wrappers.LiteralSegment:
			if levels[0] != "+" && levels[0] != pattern[0].Literal {
				return false
			}
		}
		levels, pattern = levels[1:], pattern[1:]
	}
}

// patternMatches tells whether the pattern may have produced this topic; text inside a segment
// with captures is not looked at.
func patternMatches(pattern []wrappers.Segment, topic string) bool {
	return meets(strings.Split(topic, "/"), pattern)
}

// patternFilter is the narrowest topic filter that selects all the pattern's topics.
func patternFilter(pattern []wrappers.Segment) string {
	levels := make([]string, 0, len(pattern))
	for i, s := range pattern {
		switch s.Kind {
		case wrappers.LiteralSegment:
			levels = append(levels, s.Literal)
		case wrappers.OneSegment:
			levels = append(levels, "+")
		case wrappers.RestSegments:
			if i == len(pattern)-1 {
				// One level and what is below it, so that the parent's own topic stays out.
				levels = append(levels, "+")
			}
			return strings.Join(append(levels, "#"), "/")
		}
	}
	return strings.Join(levels, "/")
}
