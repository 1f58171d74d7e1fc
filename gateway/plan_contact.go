package gateway

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// A meeting is the first contact of a wrapper's new and changed binds with its servers, as it will go.
type meeting struct {
	info   LinkInfo
	unmet  map[string]bool          // binds, by id
	told   map[string]bool          // binds that mean what they meant, and whose server may know other registers
	next   map[spot]engine.Baseline // what is heard
	heard  map[place]bool           // addresses that were looked at
	differ map[spot]bool            // both sides have a value, and nothing is decided
}

// hear plans what servers say to new and changed binds: what contacts.go will do, by the same functions.
func (p *planning) hear(info LinkInfo) (*meeting, error) {
	m := &meeting{info: info, unmet: map[string]bool{}, told: map[string]bool{}, next: map[spot]engine.Baseline{}, heard: map[place]bool{}, differ: map[spot]bool{}}
	stood := map[string]string{} // binds in force, whose first contact is under way whatever a reload does
	if was, ok := p.before[info.Name]; ok && was.Relay == info.Relay && was.Attached == info.Attached {
		for _, b := range p.old.Binds() {
			if slices.Contains(b.Wrappers(), info.Name) {
				stood[b.ID()] = b.Hash()
			}
		}
	}
	for _, b := range p.new.Binds() {
		if !slices.Contains(b.Wrappers(), info.Name) {
			continue
		}
		met, err := p.store.Kept(tableContact, info.Name+"\x00"+b.ID())
		if err != nil {
			return nil, kind(err)
		}
		if as, shown, _ := strings.Cut(string(met), " "); as == b.Hash() {
			m.told[b.ID()] = shown != p.access.shown()
			continue
		}
		if stood[b.ID()] == b.Hash() {
			continue
		}
		m.unmet[b.ID()] = true
		if b.Inward() && !b.Outward() {
			p.unsure("wrapper %s: what its server shows at %s is heard after the reload", info.Name, b.Address())
		}
	}
	if len(m.unmet) == 0 {
		return m, nil
	}
	docs, err := p.documents(info)
	if err != nil {
		return nil, err
	}
	for i := range docs {
		if err := p.shows(m, &docs[i]); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// fill plans what is written to the servers of a wrapper: what a new or changed bind finds lacking there, what registers
// have become, and what the server may know from now on.
func (p *planning) fill(m *meeting) error {
	rows := map[place]map[string]struct{}{}
	err := p.registers(func(st engine.StateBlock) error {
		_, moved := p.states[st.Register]
		for _, q := range p.new.Places(m.info.Name, st.Register) {
			if !(moved || (m.unmet[q.Bind.ID()] || m.told[q.Bind.ID()]) && !q.Bind.Events()) || !p.access.tells(&m.info, st.Register, q.Bind) {
				continue
			}
			if !q.Bind.Rows() {
				if err := p.owed(m, q, st); err != nil {
					return err
				}
				continue
			}
			at := place{q.Server, q.Address}
			if rows[at] == nil {
				rows[at] = map[string]struct{}{}
			}
			rows[at][st.Register] = struct{}{}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, at := range slices.SortedFunc(maps.Keys(rows), func(a, b place) int { return strings.Compare(a.String(), b.String()) }) {
		if err := p.owedRows(m, at, rows[at]); err != nil {
			return err
		}
	}
	return nil
}

// shows plans what a server's word means for registers under a new or changed bind.
func (p *planning) shows(m *meeting, d *shownDoc) error {
	info := m.info
	if info.Protocol.Feed && d.gone {
		return nil // a listing does not show what is not there
	}
	op := wrappers.Operation{Verb: wrappers.Put, Server: d.server, Address: d.address, Payload: d.payload}
	switch {
	case d.gone:
		op.Verb = wrappers.Delete
	case info.Protocol.Feed:
		op.Verb = wrappers.Message
	}
	effects, err := p.new.In(info.Name, &op, p.env(&engine.StateBlock{}))
	if errors.Is(err, wrappers.ErrUnmapped) {
		return nil
	}
	if err != nil {
		unmet := func(t mapping.Target) bool { return m.unmet[t.Bind.ID()] }
		if slices.ContainsFunc(p.new.AllAt(info.Name, d.server, d.address), unmet) {
			p.unsure("wrapper %s: what its server has at %s would be parked: %s", info.Name, d.address, wrappers.Reason(err))
		}
		return nil
	}
	if !slices.ContainsFunc(effects, func(e mapping.Effect) bool { return m.unmet[e.Bind.ID()] }) {
		return nil
	}
	if !info.Protocol.Feed {
		if asked, err := p.asked(m, d.place); err != nil || !asked {
			return err
		}
	}
	m.heard[d.place] = true
	if d.marked && slices.ContainsFunc(effects, func(e mapping.Effect) bool { return m.unmet[e.Bind.ID()] && !e.Bind.Marks() }) {
		p.unsure("wrapper %s: what its server has at %s may be there, marked as deleted: it is heard after the reload", info.Name, d.address)
	}
	if effects, err = p.spread(m, d.place, effects); err != nil {
		p.unsure("wrapper %s: what its server has at %s would be parked: %s", info.Name, d.address, wrappers.Reason(err))
		return nil
	}
	for _, e := range effects {
		if !m.unmet[e.Bind.ID()] {
			continue
		}
		s := spot{d.place, e.Register}
		p.has(e.Bind, info.Name, s)
		base, known, err := p.baseline(m, s)
		if err != nil {
			return err
		}
		cur, err := p.state(e.Register)
		if err != nil {
			return err
		}
		if e.Absent && !known && cur.Exists {
			e.Delete, e.Whole, e.Fields = true, false, nil // as link.reconcile has it
		}
		v := base.Reconcile(e.Register, shownBy(e, cur, engine.Shown{State: true, Feed: info.Protocol.Feed, Version: base.Version}), cur, firstContact(e.Bind))
		if len(v.Conflict) > 0 {
			p.add(PlanStep{
				Where: "server", What: "conflict", Wrapper: info.Name, Server: d.server, Address: d.address, Register: e.Register, bind: e.Bind,
				Before: planValue(cur), After: string(d.payload.Raw), Note: "both sides have a value and differ in " + strings.Join(v.Conflict, ", ") + ": set `first` on the bind",
			})
			m.next[s], m.differ[s] = base, true
			continue
		}
		if e.Delete && e.Bind.OnDelete() == "ignore" {
			v.Ops = nil
		}
		v.Next.Became(engine.Dot{})
		v.Next.Bind = e.Bind.Hash()
		m.next[s] = v.Next
		if len(v.Ops) == 0 {
			continue
		}
		after, note := becomes(cur, v.Ops, p.new)
		step := PlanStep{
			Where: "register", What: "change", Wrapper: info.Name, Server: d.server, Address: d.address, Register: e.Register, bind: e.Bind,
			Before: planValue(cur), After: planValue(after), Note: note,
		}
		switch {
		case step.Before == step.After:
			continue
		case !cur.Exists:
			step.What = "create"
		case !after.Exists:
			step.What = "delete"
		}
		p.states[e.Register] = after
		p.add(step)
	}
	return nil
}

// asked tells whether a server without a feed is asked for an address because a register has it.
func (p *planning) asked(m *meeting, at place) (bool, error) {
	for _, t := range p.new.AllAt(m.info.Name, at.server, at.address) {
		switch {
		case !m.unmet[t.Bind.ID()] || !t.Bind.Outward() || t.Bind.Events():
		case t.Document == nil:
			st, err := p.store.ReadState(p.ctx, t.Register)
			if err != nil || st.Exists {
				return st.Exists, kind(err)
			}
		default:
			for st, err := range p.store.List(p.ctx, t.Document.Prefix(), "", 0) {
				if err != nil {
					return false, kind(err)
				}
				if t.Document.Has(st.Register) {
					return true, nil
				}
			}
		}
	}
	return false, nil
}

// has counts a register at an address among what a bind has.
func (p *planning) has(b *mapping.Bind, wrapper string, s spot) {
	if p.there[b] == nil {
		p.there[b] = map[string]struct{}{}
	}
	p.there[b][s.key(wrapper)] = struct{}{}
}

func (p *planning) unsure(format string, args ...any) {
	p.plan.Unsure = append(p.plan.Unsure, fmt.Sprintf(format, args...))
}

func (p *planning) baseline(m *meeting, s spot) (base engine.Baseline, known bool, err error) {
	if base, ok := m.next[s]; ok {
		return base, true, nil
	}
	raw, err := p.store.Kept(tableBaseline, s.key(m.info.Name))
	if err != nil || raw == nil {
		return base, false, kind(err)
	}
	base, err = engine.ParseBaseline(raw)
	return base, true, err
}

// owed plans what is written to a server so that it has what a register has.
func (p *planning) owed(m *meeting, q mapping.Place, st engine.StateBlock) error {
	info := m.info
	s := spot{place{q.Server, q.Address}, st.Register}
	base, had, err := p.baseline(m, s)
	if err != nil {
		return err
	}
	p.has(q.Bind, info.Name, s)
	if m.differ[s] {
		return nil
	}
	_, gone, owed := owes(q.Bind, &base, st)
	create := !had || base.Holds(nil, true, q.Bind.Carries)
	step := PlanStep{Where: "server", What: "change", Wrapper: info.Name, Server: q.Server, Address: q.Address, Register: st.Register, bind: q.Bind}
	if q.Bind.Filled() && !gone {
		var ok bool
		if step.Address, ok = p.new.AddressOf(q, st); !ok {
			return nil
		}
	}
	var pay wrappers.Payload
	send := true
	switch env := p.env(&st); {
	case gone && q.Bind.Marks():
		if create {
			return nil // there is nothing to mark
		}
		pay, err = q.Bind.OutGone(q, st, nil, env)
	case gone || !q.Bind.There(st):
		if q.Bind.Filled() {
			return nil
		}
	default:
		if pay, send, err = q.Bind.Out(q, st, nil, env); err == nil && send && create && q.Bind.HasCreate() {
			pay, err = q.Bind.CreatePayload(q, st, pay, env)
		}
	}
	switch {
	case err != nil:
		step.What, step.Note = "conflict", "it can't be written there: "+wrappers.Reason(err)
	case !send:
		return nil
	}
	step.After = string(pay.Raw)
	if m.unmet[q.Bind.ID()] && p.silent(m, s, q.Bind, &base, had) {
		if step.What != "conflict" {
			step.What, step.Note = "ask", heardFirst
		}
		if gone {
			return nil
		}
		p.add(step)
		return nil
	}
	if !owed {
		return nil
	}
	step.Before = shownText(&base)
	switch {
	case step.What == "conflict":
	case gone || !q.Bind.There(st):
		step.What = "delete"
	case step.Before == "" || create:
		step.What = "create"
	}
	p.add(step)
	return nil
}

const heardFirst = "what its server has there is heard first; this is written if it has nothing"

// silent tells whether nobody knows what a server has at an address before it is asked, or before its listing.
func (p *planning) silent(m *meeting, s spot, b *mapping.Bind, base *engine.Baseline, had bool) bool {
	if _, heard := m.next[s]; heard || m.heard[s.place] {
		return false
	}
	if m.info.Protocol.Feed {
		return b.Inward() && !had
	}
	return askFirst(b, base, had)
}

// shownText is what a server has, by fields.
func shownText(base *engine.Baseline) string {
	st := shownState("", base)
	if m := st.Value.Members(); !st.Exists || st.Value.Kind() == lattice.ObjectKind && len(m) == 0 {
		return ""
	}
	return string(st.Value.AppendJSON(nil))
}
