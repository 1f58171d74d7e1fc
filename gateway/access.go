package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// An AccessBlock says who may read and write the registers of a template. Whom it doesn't name may not.
type AccessBlock struct {
	Register    string // template
	Read, Write []string
	Source      string // "gateway.hcl:31"
}

// A Policy says who may do what with which register, at this gateway. Nil: whoever has logged on may do everything.
type Policy struct {
	names  mapping.RegisterNames
	blocks []AccessBlock
	groups map[string][]string
	hash   string // of all that it says
}

// newPolicy makes the policy of blocks whose templates were checked; nil where neither they nor a bind restrict anything.
func newPolicy(blocks []AccessBlock, groups map[string][]string, set *mapping.Set) (*Policy, error) {
	narrows := slices.ContainsFunc(set.Binds(), func(b *mapping.Bind) bool { return b.Readers() != nil || b.Writers() != nil })
	if len(blocks) == 0 && !narrows {
		return nil, nil
	}
	p := &Policy{blocks: blocks, groups: groups, hash: policyHash(blocks, groups)}
	for i := range blocks {
		if _, err := p.names.Add(blocks[i].Register); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// policyHash names what blocks and groups say, wherever they stand.
func policyHash(blocks []AccessBlock, groups map[string][]string) string {
	h := sha256.New()
	for _, b := range blocks {
		fmt.Fprintf(h, "%q %q %q\n", b.Register, b.Read, b.Write)
	}
	fmt.Fprintf(h, "%q", groups) // in the order of their names
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// A principal is whoever asks, as lists of who may know them.
type principal struct {
	protocol, wrapper string
	name              string // "" for one who did not log on, or whom nobody knows
	user              bool   // the gateway knows the name: a user block's, or at the socket the operating system's
}

func (p principal) String() string {
	at := p.protocol + "/" + p.wrapper
	if p.protocol == doorProtocol {
		at = p.protocol
	}
	switch {
	case p.name == "":
		return at
	case p.user:
		return p.name
	}
	return at + ":" + p.name
}

// doorProtocol is what stands for the socket where protocols stand.
const doorProtocol = "daemon"

// is tells whether a list's entry means this peer.
func (p principal) is(entry string, groups map[string][]string) bool {
	if entry == "*" {
		return true
	}
	if group, ok := strings.CutPrefix(entry, "@"); ok {
		return slices.ContainsFunc(groups[group], func(m string) bool { return p.is(m, nil) })
	}
	protocol, rest, ok := strings.Cut(entry, "/")
	if !ok {
		return p.user && p.name == entry
	}
	wrapper, name, named := strings.Cut(rest, ":")
	return protocol == p.protocol && (wrapper == "*" || wrapper == p.wrapper) && (!named || !p.user && p.name == name)
}

func (p principal) in(list []string, groups map[string][]string) bool {
	return slices.ContainsFunc(list, func(entry string) bool { return p.is(entry, groups) })
}

// A verdict says whether a peer may, and why.
type verdict struct {
	ok     bool
	source string // the line that decided; "" where none has a say
	why    string
}

// register says what the access blocks have to say of a register.
func (p *Policy) register(who principal, register string, need wrappers.Access) verdict {
	if p != nil {
		if i, ok := p.names.Find(register); ok {
			return p.block(i, who, need)
		}
	}
	return verdict{ok: true, why: "no access block has it: whoever has logged on may"}
}

func (p *Policy) block(i int, who principal, need wrappers.Access) verdict {
	b := &p.blocks[i]
	verb, list := "read", append(slices.Clone(b.Read), b.Write...) // who may write may read
	if need == wrappers.WriteAccess {
		verb, list = "write", b.Write
	}
	v := verdict{ok: who.in(list, p.groups), source: b.Source}
	if v.ok {
		at := list[slices.IndexFunc(list, func(e string) bool { return who.is(e, p.groups) })]
		v.why = fmt.Sprintf("access %q lets %q %s", b.Register, at, verb)
	} else {
		v.why = fmt.Sprintf("access %q lets %s %s", b.Register, someone(list), verb)
	}
	return v
}

func someone(list []string) string {
	if len(list) == 0 {
		return "nobody"
	}
	return "only " + quoted(list)
}

// bind says what a bind has to say of its addresses.
func (p *Policy) bind(who principal, b *mapping.Bind, need wrappers.Access) verdict {
	verb, list := "read", b.Readers()
	if need == wrappers.WriteAccess {
		verb, list = "write", b.Writers()
	}
	if p == nil || list == nil {
		return verdict{ok: true}
	}
	ok := who.in(list, p.groups)
	if need == wrappers.ReadAccess {
		ok = ok || who.in(b.Writers(), p.groups)
	}
	return verdict{ok: ok, source: b.Source(), why: fmt.Sprintf("its bind lets %s %s", someone(list), verb)}
}

// may refuses what a peer may not do at a bind's address with a register.
func (p *Policy) may(who principal, register string, b *mapping.Bind, need wrappers.Access) error {
	if p == nil {
		return nil
	}
	v := p.register(who, register, need)
	if v.ok && b != nil {
		v = p.bind(who, b, need)
	}
	if v.ok {
		return nil
	}
	return refusal(who, register, need)
}

// refusal is what a peer is told: who may is not its business.
func refusal(who principal, register string, need wrappers.Access) error {
	verb := "read"
	if need == wrappers.WriteAccess {
		verb = "write"
	}
	return wrappers.Refuse(wrappers.ErrDenied, fmt.Sprintf("%s may not %s %s", who, verb, register))
}

// somewhere refuses what a peer may not do with all registers that a bind can have, or a document of it: of an address
// which does not tell the register.
func (p *Policy) somewhere(who principal, b *mapping.Bind, d *mapping.Document, need wrappers.Access) error {
	if p == nil {
		return nil
	}
	ok := p.bind(who, b, need).ok
	for _, i := range p.names.Of(b, d) {
		ok = ok && p.block(i, who, need).ok
	}
	if ok {
		return nil
	}
	return refusal(who, b.Register(), need)
}

// peer is who did an operation.
func (l *link) peer(who *wrappers.Who) principal {
	p := principal{protocol: l.info.Protocol.Name, wrapper: l.name, user: !l.info.Relay && !l.info.Attached}
	if who.Verified || !p.user { // in front of a server it is the server that checks
		p.name = who.Principal
	}
	if name, ok := strings.CutPrefix(p.name, p.protocol+"/"+p.wrapper+":"); ok {
		p.name, p.user = name, false // as a server knows them
	}
	return p
}

// May implements wrappers.Link.
func (l *link) May(verb wrappers.Verb, server, address string, who wrappers.Who) error {
	gen := l.gen.Load()
	if gen.Access == nil {
		return nil
	}
	p, need := l.peer(&who), needs(verb)
	if at, ok := gen.Set.At(l.name, server, address); ok && at.Document == nil && !at.Bind.Shared() {
		return gen.Access.may(p, at.Register, at.Bind, need)
	}
	if all := gen.Set.AllAt(l.name, server, address); len(all) > 0 {
		return l.mayTogether(context.Background(), gen.Access, p, all, need)
	}
	if b := gen.Set.Bind(l.name, address); b != nil {
		return gen.Access.somewhere(p, b, nil, need)
	}
	return nil
}

// mayTogether is for an address that shows several registers, which is read and written whole: who may not read one of
// them may not read it. Of a document without rows nobody knows which it will have: who may not read all that it could
// have may not read it.
func (l *link) mayTogether(ctx context.Context, access *Policy, p principal, all []mapping.Target, need wrappers.Access) error {
	there, err := l.mayRows(ctx, access, p, all, need)
	if err != nil || there {
		return err
	}
	for _, t := range all {
		if t.Document != nil {
			if err := access.somewhere(p, t.Bind, t.Document, need); err != nil {
				return err
			}
		}
	}
	return nil
}

// mayRows holds each register that an address shows against the access blocks, and tells whether there is one.
func (l *link) mayRows(ctx context.Context, access *Policy, p principal, all []mapping.Target, need wrappers.Access) (there bool, err error) {
	if access == nil {
		return true, nil
	}
	for _, t := range all {
		if t.Document == nil {
			if err := access.may(p, t.Register, t.Bind, need); err != nil {
				return false, err
			}
			there = true
			continue
		}
		if !access.bind(p, t.Bind, need).ok {
			return false, refusal(p, t.Bind.Register(), need)
		}
		rows, err := l.rowsOf(ctx, t.Document)
		if err != nil {
			return false, err
		}
		for i := range rows {
			if err := access.may(p, rows[i].Register, t.Bind, need); err != nil {
				return false, err
			}
		}
		there = there || len(rows) > 0
	}
	return there, nil
}

func needs(verb wrappers.Verb) wrappers.Access {
	if verb.Writes() {
		return wrappers.WriteAccess
	}
	return wrappers.ReadAccess
}

// permitted refuses a write that its peer may not do.
func (l *link) permitted(who *wrappers.Who, effects []mapping.Effect) error {
	access := l.gen.Load().Access
	if access == nil {
		return nil
	}
	p := l.peer(who)
	for i := range effects {
		if err := access.may(p, effects[i].Register, effects[i].Bind, wrappers.WriteAccess); err != nil {
			return err
		}
	}
	return nil
}

// tells tells whether the wrapper's server may know a register: what it knows, its own peers can read.
func (l *link) tells(register string, b *mapping.Bind) bool {
	return l.gen.Load().Access.tells(&l.info, register, b)
}

func (p *Policy) tells(info *LinkInfo, register string, b *mapping.Bind) bool {
	return p == nil || p.may(principal{protocol: info.Protocol.Name, wrapper: info.Name}, register, b, wrappers.ReadAccess) == nil
}

// shown names what restricts what servers may know; "" if nothing does.
func (p *Policy) shown() string {
	if p == nil {
		return ""
	}
	return p.hash
}

// may refuses, at the socket, what the operating system's user may not do.
func (g *Gateway) may(s *session, register string, need wrappers.Access) error {
	access := g.generation.Load().Access
	if access == nil {
		return nil
	}
	if err := access.may(s.peer(), register, nil, need); err != nil {
		return &kindError{err, engine.ErrDenied}
	}
	return nil
}

func (s *session) peer() principal {
	p := principal{protocol: doorProtocol, user: true}
	if s.verified {
		p.name = s.principal
	}
	return p
}
