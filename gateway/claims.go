package gateway

import (
	"context"
	"fmt"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// Where a protocol can't tell addresses apart that differ in case, they are one: that of the register which had it first,
// for as long as that exists. What its peers spell otherwise means that register.

func (l *link) claimKey(server, address string) string {
	return l.name + "\x00" + server + "\x00" + strings.ToLower(address)
}

// claimed gives an address as whoever has it spells it, and whether somebody has.
func (l *link) claimed(ctx context.Context, server, address string) (string, bool, error) {
	raw, err := l.store.Kept(tableClaim, l.claimKey(server, address))
	if err != nil || raw == nil {
		return address, false, kind(err)
	}
	first := string(raw)
	if first == address {
		return address, true, nil
	}
	t, ok := l.set().At(l.name, server, first)
	if !ok {
		return address, false, nil
	}
	if t.Document != nil {
		return first, true, nil
	}
	st, err := l.store.ReadState(ctx, t.Register)
	if err != nil || !st.Exists {
		return address, false, kind(err)
	}
	return first, true, nil
}

// spelled brings the addresses of an operation into the spelling of whoever has them. A write takes what nobody has.
func (l *link) spelled(ctx context.Context, op *wrappers.Operation) error {
	if !l.info.Protocol.Syntax.Fold {
		return nil
	}
	for i := range op.Parts {
		if err := l.spelled(ctx, &op.Parts[i]); err != nil {
			return err
		}
	}
	for _, a := range []*string{&op.Address, &op.To} {
		if *a == "" || op.Verb == wrappers.List {
			continue
		}
		spelled, taken, err := l.claimed(ctx, op.Server, *a)
		if err != nil {
			return err
		}
		if *a = spelled; !taken && op.Verb.Writes() {
			l.claim(op.Server, *a)
		}
	}
	return nil
}

func (l *link) claim(server, address string) {
	if t, ok := l.set().At(l.name, server, address); ok {
		l.keepQuietly(engine.Record{Table: tableClaim, Key: l.claimKey(server, address), Value: []byte(t.Address)})
	}
}

// mayWrite tells whether a register has its address. The error says who has it instead: another one, whose name differs
// in case.
func (l *link) mayWrite(ctx context.Context, p mapping.Place, st engine.StateBlock) (bool, error) {
	if !l.info.Protocol.Syntax.Fold {
		return true, nil
	}
	first, taken, err := l.claimed(ctx, p.Server, p.Address)
	if err != nil {
		return false, err
	}
	if !taken && st.Exists {
		l.claim(p.Server, p.Address)
	}
	if first == p.Address {
		return true, nil
	}
	if !st.Exists {
		return false, nil // it never had it
	}
	owner := first
	if t, ok := l.set().At(l.name, p.Server, first); ok && t.Register != "" {
		owner = t.Register
	}
	return false, wrappers.Refuse(wrappers.ErrConflict, fmt.Sprintf(
		"the registers %s and %s differ in case only, and are one address here: %s, which the first keeps. Delete one of them, or set `fold = true` on their register block",
		owner, st.Register, first))
}
