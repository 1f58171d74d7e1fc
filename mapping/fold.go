package mapping

import (
	"fmt"
	"strings"

	"github.com/spooksystems/gateway/engine"
)

// folded is a capture as it stands in the name of a register: in lower case where names that differ in case are one.
func (b *Bind) folded(capture string) string {
	if b.decl == nil || !b.decl.fold {
		return capture
	}
	return strings.ToLower(capture)
}

// Folds tells whether names of the bind's registers that differ in case are one.
func (b *Bind) Folds() bool { return b.decl != nil && b.decl.fold }

// checkFold refuses a name that no address would ever mean.
func (d *decl) checkFold(register string, f *finding) error {
	if !d.fold {
		return nil
	}
	var low captures
	same := true
	for i := range d.leaf.template.names {
		low[i] = strings.ToLower(f.raw[i])
		same = same && low[i] == f.raw[i]
	}
	if same {
		return nil
	}
	name, _ := d.leaf.template.appendTo(nil, func(i int) string { return low[i] })
	return fmt.Errorf("%w: register %s: names that differ in case are one here; it is %s (%s)", engine.ErrInvalid, register, name, d.source)
}
