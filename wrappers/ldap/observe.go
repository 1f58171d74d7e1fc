package ldap

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// observe appends what an event means.
func (f *feed) observe(ctx context.Context, out []wrappers.Observation, ev *event) ([]wrappers.Observation, error) {
	was, err := f.known(ctx, ev.uuid)
	if err != nil {
		return nil, err
	}
	if ev.gone {
		delete(f.ahead, ev.uuid)
		return f.gone(ctx, out, ev, was)
	}
	name, err := dn.Parse(ev.entry.ObjectName)
	if err != nil {
		f.a.link.Count("unreadable_names", 1)
		f.a.log().Warn("an entry's name can't be read", "dn", ev.entry.ObjectName, "err", err)
		return out, nil
	}
	address, below := name.Address(f.a.opts.base)
	if !below {
		if was.address != "" {
			return f.gone(ctx, out, ev, was) // it was moved away
		}
		return f.bear(out, ev), nil
	}
	moved := was.address != "" && path(was.address) != path(address)
	if !moved && !ev.listed && !ev.read && f.stale(ev, was) {
		return f.bear(out, ev), nil
	}
	if ev.read {
		f.ahead[ev.uuid] = ev.csn
	}
	if ev.csn == was.csn {
		ev.foreign = false // it was shown before, and may be older than what was written since
	}
	var gone *wrappers.Observation
	if moved {
		if out, gone, err = f.movedAway(ctx, out, ev, was, name); err != nil {
			return nil, err
		}
	}
	mapped := f.a.link.Maps(wrappers.Put, "", address)
	o := wrappers.Observation{Verb: wrappers.Put, Address: address, Version: wrappers.Version(ev.csn)}
	if mapped || f.binds.above(name, f.a.opts.base) {
		o.Keep = f.note(ev.uuid, known{address, ev.csn})
	}
	if mapped {
		if err := f.fill(&o, ev); err != nil {
			return nil, err
		}
	}
	switch {
	case gone == nil:
	case mapped && !o.Ours && !ev.listed && !ev.read && !f.polls && f.a.link.Maps(wrappers.Delete, "", gone.Address):
		o.Verb, o.Address, o.To, o.Keep = wrappers.Rename, gone.Address, address, append(gone.Keep, o.Keep...)
	default:
		out = append(out, *gone)
	}
	if ev.cookie != nil {
		o.Keep = append(o.Keep, f.cookieRecord(ev.cookie))
	}
	if len(o.Keep) == 0 {
		return out, nil
	}
	return append(out, o), nil
}

// fill puts the entry's attributes into an observation.
func (f *feed) fill(o *wrappers.Observation, ev *event) error {
	attributes := f.binds.without(ev.entry.Attributes)
	o.Ours = f.a.own.wrote(ev.csn)
	o.Foreign = ev.foreign && !o.Ours
	o.Who = f.a.modifier(ev.entry)
	var more []wrappers.Record
	attributes, more = f.a.renders.apply(o.Address, attributes, f.a.own.meant(o.Address, ev.csn))
	o.Keep = append(o.Keep, more...)
	pay, err := f.binds.members(o.Address).Payload(attributes)
	if err != nil {
		return fmt.Errorf("%s: %w", o.Address, err)
	}
	o.Payload = pay
	f.a.docs.put(o.Address, ev.csn, attributes, f.binds)
	return nil
}

// stale tells whether the state was shown already.
func (f *feed) stale(ev *event, was known) bool {
	if ev.csn == "" {
		return false
	}
	if until, ok := f.ahead[ev.uuid]; ok {
		if ev.csn >= until {
			delete(f.ahead, ev.uuid)
		}
		if ev.csn < until {
			return true
		}
	}
	return was.address != "" && ev.csn == was.csn
}

// bear has a cookie stored that came with nothing of interest.
func (f *feed) bear(out []wrappers.Observation, ev *event) []wrappers.Observation {
	if ev.cookie == nil {
		return out
	}
	if n := len(out); n > 0 { // with what came before it
		out[n-1].Keep = append(out[n-1].Keep, f.cookieRecord(ev.cookie))
		return out
	}
	f.cookie = ev.cookie
	return out
}

// gone reports that an entry is not there any more, unless another has taken its place meanwhile: a refresh shows what came
// before what went.
func (f *feed) gone(ctx context.Context, out []wrappers.Observation, ev *event, was known) ([]wrappers.Observation, error) {
	if was.address == "" {
		return f.bear(out, ev), nil
	}
	holder, err := f.holderOf(ctx, was.address)
	if err != nil {
		return nil, err
	}
	o := wrappers.Observation{Verb: wrappers.Delete, Address: was.address, Version: wrappers.Version(ev.csn), Who: f.a.remover(was.address)}
	o.Keep = append(o.Keep, wrappers.Record{Key: entryKey + hex.EncodeToString([]byte(ev.uuid))})
	f.noted[ev.uuid] = known{}
	if ev.cookie != nil {
		o.Keep = append(o.Keep, f.cookieRecord(ev.cookie))
	}
	if holder != ev.uuid {
		f.after = append(f.after, o.Keep...)
		return out, nil
	}
	o.Keep = append(o.Keep, wrappers.Record{Key: placeKey + path(was.address)})
	o.Keep = append(o.Keep, f.a.renders.drop(was.address)...)
	f.holder[path(was.address)] = ""
	f.a.docs.drop(was.address)
	return append(out, o), nil
}

// movedAway reports that all below an entry that was moved are where it is now: of them the directory says nothing (RFC 4533,
// section 3.6). gone is what there is to say of where it was itself; nil: another has taken its place.
func (f *feed) movedAway(ctx context.Context, out []wrappers.Observation, ev *event, was known, to dn.DN) (_ []wrappers.Observation, gone *wrappers.Observation, err error) {
	if !ev.alone {
		below := false
		for rec, err := range f.a.link.Kept(ctx, placeKey+path(was.address)+",") {
			if err != nil {
				return nil, nil, err
			}
			below = below || rec.Value != nil
			break
		}
		if below {
			more, err := f.subtree(ctx, to)
			if err != nil {
				return nil, nil, err
			}
			for i := range more {
				if out, err = f.observe(ctx, out, &more[i]); err != nil {
					return nil, nil, err
				}
			}
		}
	}
	holder, err := f.holderOf(ctx, was.address)
	if err != nil || holder != ev.uuid {
		return out, nil, err
	}
	f.holder[path(was.address)] = ""
	gone = &wrappers.Observation{Verb: wrappers.Delete, Address: was.address, Version: wrappers.Version(ev.csn), Who: f.a.modifier(ev.entry)}
	gone.Keep = append([]wrappers.Record{{Key: placeKey + path(was.address)}}, f.a.renders.drop(was.address)...)
	f.a.docs.drop(was.address)
	return out, gone, nil
}

// subtree reads what stands below an entry that was moved.
func (f *feed) subtree(ctx context.Context, top dn.DN) ([]event, error) {
	s, err := f.a.side(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	var out []event
	err = f.a.list(ctx, s, top.String(), anything, f.attributes(), func(e *ldapwire.SearchResultEntry) error {
		if name, err := dn.Parse(e.ObjectName); err != nil || name.Equal(top) {
			return nil // itself
		}
		out = append(out, event{uuid: f.identity(e), entry: e, csn: f.version(e), read: true, alone: true})
		return nil
	})
	return out, err
}
