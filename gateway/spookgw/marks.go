package main

import (
	"fmt"
	"strings"

	"github.com/spooksystems/gateway/engine"
)

// marks are what is to be known of a value besides it, in a few words; "" for nothing.
func marks(b engine.StateBlock) string {
	var parts []string
	if len(b.Siblings) > 0 {
		parts = append(parts, "siblings: "+fieldNames(b.Siblings))
	}
	if len(b.Provisional) > 0 {
		parts = append(parts, "provisional: "+fieldNames(b.Provisional))
	}
	if b.Waiting > 0 {
		parts = append(parts, fmt.Sprintf("%d waiting", b.Waiting))
	}
	if b.Opaque {
		parts = append(parts, "opaque: made by a newer program")
	}
	if b.Incoming {
		parts = append(parts, "incoming: a part is not here yet")
	}
	return strings.Join(parts, "; ")
}

// marked are marks behind a value.
func marked(b engine.StateBlock) string {
	if m := marks(b); m != "" {
		return "  [" + m + "]"
	}
	return ""
}

func fieldNames(fields []string) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = fieldName(f)
	}
	return strings.Join(names, ", ")
}

// fieldName is a field as users read it; a register without fields has a value.
func fieldName(f string) string {
	if f == "" {
		return "value"
	}
	return f
}

// showState prints a register's value alone on stdout; what else is to be known is said.
func (a *app) showState(b engine.StateBlock) error {
	if m := marks(b); m != "" {
		a.say("%s: %s", b.Register, m)
	}
	switch {
	case !b.Exists:
		a.say("%s does not exist", b.Register)
		return nil
	case b.Value.IsAbsent():
		a.say("%s: too large to show", b.Register)
		return nil
	}
	_, err := fmt.Fprintf(a.out, "%s\n", b.Value.AppendJSON(nil))
	return err
}

// who is who did something, through what, from where, and by which mapping line. By is what is
// known when the cause is not.
func who(c engine.Cause, by string) string {
	if c == (engine.Cause{}) {
		if by == "" {
			return "somebody"
		}
		return strings.TrimSuffix(by, "/") // the daemon has no wrapper
	}
	through := c.Protocol
	if c.Wrapper != "" {
		through += "/" + c.Wrapper
	}
	text := through
	if c.Principal != "" && c.Verified {
		text = c.Principal + " through " + through
	}
	if c.Peer != "" {
		text += " from " + c.Peer
	}
	if c.Principal != "" && !c.Verified {
		text += " as " + c.Principal + ", which nobody checked"
	}
	if did := strings.TrimSpace(c.Verb + " " + strings.TrimSpace(c.Server+" "+c.Address)); did != "" {
		text += ", " + did
	}
	if c.RenamedFrom != "" {
		text += ", renamed from " + c.RenamedFrom
	}
	if c.Source != "" {
		text += " (" + c.Source + ")"
	}
	return text
}
