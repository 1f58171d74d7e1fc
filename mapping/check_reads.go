package mapping

import "fmt"

// checkReads warns where what a bind reads by reg() is made of what it writes: two messages at once, or two gateways, read
// the same value, and one of the two writes is lost.
func (l *loader) checkReads() {
	writers := map[string][]*Bind{}
	for _, b := range l.set.binds {
		for _, r := range b.regs {
			writers[r.name] = nil
		}
	}
	for name := range writers {
		for _, b := range l.set.binds {
			var f finding
			if b.Inward() && b.regTree.find(name, &f) {
				writers[name] = append(writers[name], b)
			}
		}
	}
	for _, b := range l.set.binds {
		done := l.Within(fmt.Sprintf("bind %q %q", b.protocol, b.address))
		for _, r := range b.regs {
			switch via := madeOf(b, r.name, writers, map[*Bind]bool{}); {
			case via == b:
				l.Warn("MAP103", r.rng, fmt.Sprintf("%q is a register that this bind writes", r.name),
					"Of two messages at once both read the same value, and one of the writes is lost. To add to what is there, declare a sum or a union and write by(…).")
			case via != nil:
				l.Warn("MAP103", r.rng, fmt.Sprintf("%q is made of a register that this bind writes", r.name),
					fmt.Sprintf("The bind at %s reads it by reg(), so that the two feed each other. Let one of them read the payload alone.", via.source))
			}
		}
		done()
	}
}

// madeOf finds the bind through which the register called name depends on what b writes; b itself where b writes it.
func madeOf(b *Bind, name string, writers map[string][]*Bind, seen map[*Bind]bool) *Bind {
	for _, o := range writers[name] {
		if o == b {
			return b
		}
	}
	for _, o := range writers[name] {
		if seen[o] {
			continue
		}
		seen[o] = true
		for _, r := range o.regs {
			if madeOf(b, r.name, writers, seen) != nil {
				return o
			}
		}
	}
	return nil
}
