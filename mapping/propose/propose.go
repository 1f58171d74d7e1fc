// Package propose makes a first mapping out of recorded operations: which addresses are one template, what their payloads are, and what of it
// is the same thing in several protocols. What it proposes loads, and maps what it says it maps: each register has been tried on the
// recording before it is proposed.
package propose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/mapping/recording"
	"github.com/spooksystems/gateway/wrappers"
)

// MaxOperations is how many operations one proposal looks at.
const MaxOperations = 200_000

// maxRegisters bounds a proposal: traffic that makes more has addresses nobody would want as templates.
const maxRegisters = 300

// A Request is what to make a proposal from.
type Request struct {
	Operations []recording.Operation
	Protocols  []wrappers.Protocol
	Name       string // of the recording, for the comments
}

// A Proposal is a mapping file, and what it is good for.
type Proposal struct {
	HCL        string
	Registers  int
	Binds      int
	Operations int // looked at
	Mapped     int // of these, what the proposal maps
	Left       []Left
}

// Left is traffic that nothing is proposed for.
type Left struct {
	Protocol string `json:"protocol"`
	Address  string `json:"address"` // template, or one address
	Count    int    `json:"count"`
	Why      string `json:"why"`
}

// Make proposes a mapping. It does no I/O.
func Make(req Request) Proposal {
	p := &proposer{req: req, protocols: map[string]*wrappers.Protocol{}, left: map[Left]int{}}
	for i := range req.Protocols {
		p.protocols[req.Protocols[i].Name] = &req.Protocols[i]
	}
	for i := range req.Operations {
		p.collect(&req.Operations[i])
	}
	p.wrappersOf()
	p.probe()
	routes := p.routes()
	return p.write(p.registers(routes))
}

type proposer struct {
	req       Request
	protocols map[string]*wrappers.Protocol
	samples   []*sample
	infos     []mapping.WrapperInfo
	several   map[string]bool // protocols with more than one wrapper
	can       map[string]bool // codecs and attributes that this version has
	left      map[Left]int
	total     int
}

// A sample is one operation, looked at.
type sample struct {
	op      *recording.Operation
	verb    wrappers.Verb
	segs    []string
	query   []param
	payload payload
	route   *route
}

type param struct{ name, value string }

// collect takes what can teach something.
func (p *proposer) collect(o *recording.Operation) {
	if len(o.Parts) > 0 {
		for i := range o.Parts {
			part := o.Parts[i]
			part.Kind, part.Protocol, part.Wrapper, part.Outcome, part.Registers = o.Kind, o.Protocol, o.Wrapper, o.Outcome, o.Registers
			p.collect(&part)
		}
		return
	}
	op := o.Op()
	switch {
	case o.Outcome == recording.NoNews, o.Outcome == recording.NotTaken, op.Verb == wrappers.List:
		return // says nothing that the write before it didn't
	}
	p.total++
	proto := p.protocols[o.Protocol]
	switch {
	case proto == nil:
		p.leave(o, "this program does not speak the protocol")
		return
	case op.Verb == wrappers.Rename:
		p.leave(o, "operations that rename are not proposed for")
		return
	case proto.Messages && proto.Syntax.Separator == "/" && strings.HasPrefix(o.Address, "$"):
		p.leave(o, "a broker's word on itself")
		return
	case o.Outcome != "" && o.Kind != recording.Passed && !strings.Contains(o.Outcome, wrappers.ErrUnmapped.Error()):
		p.leave(o, "it was refused") // what the mappings that were there did not take teaches nothing
		return
	case o.Omitted:
		p.leave(o, "the payload was not recorded")
		return
	}
	s := &sample{op: o, verb: op.Verb}
	var why string
	if s.segs, s.query, why = split(&proto.Syntax, o.Address); why != "" {
		p.leave(o, why)
		return
	}
	if proto.Syntax.Keys && len(s.query) == 0 {
		p.leave(o, "nothing tells its rows apart: it has no primary key")
		return
	}
	s.payload = look(op.Payload.Raw, o.Type+" "+o.Meta["content-type"], s.segs[len(s.segs)-1])
	p.samples = append(p.samples, s)
}

// split takes an address apart. why: nothing can be proposed for it.
func split(s *wrappers.Syntax, address string) (segs []string, query []param, why string) {
	path := address
	if s.Query {
		var q string
		path, q, _ = strings.Cut(address, "?")
		for _, kv := range strings.Split(q, "&") {
			if name, value, ok := strings.Cut(kv, "="); ok && name != "" {
				query = append(query, param{name, value})
			}
		}
	}
	if s.Absolute {
		path = strings.TrimPrefix(path, s.Separator)
	}
	if path == "" {
		return nil, nil, "the root has no name"
	}
	segs = []string{path}
	if s.Separator != "" {
		segs = strings.Split(path, s.Separator)
	}
	if len(segs) > 12 {
		return nil, nil, "more than 12 segments"
	}
	for _, seg := range segs {
		if seg == "" {
			return nil, nil, "an empty segment"
		}
		if strings.ContainsAny(seg, "{}") {
			return nil, nil, "braces in the address"
		}
		if strings.HasPrefix(seg, ".") || strings.HasPrefix(seg, "~") || strings.HasSuffix(seg, "~") || strings.HasSuffix(seg, ".tmp") {
			return nil, nil, "a temporary name"
		}
	}
	return segs, query, ""
}

func (p *proposer) leave(o *recording.Operation, why string) {
	address, _, _ := strings.Cut(o.Address, "?")
	p.left[Left{Protocol: o.Protocol, Address: address, Why: why}]++
}

// wrappersOf makes what Load must know of the wrappers that were recorded.
func (p *proposer) wrappersOf() {
	p.several = map[string]bool{}
	servers := map[string][]string{}
	for _, s := range p.samples {
		w := s.op.Wrapper
		if _, known := servers[w]; !known {
			servers[w] = nil
			for _, i := range p.infos {
				p.several[s.op.Protocol] = p.several[s.op.Protocol] || i.Protocol.Name == s.op.Protocol
			}
			p.infos = append(p.infos, mapping.WrapperInfo{Protocol: *p.protocols[s.op.Protocol], Name: w, Upstream: true, Listens: true})
		}
		if s.op.Server != "" && !slices.Contains(servers[w], s.op.Server) {
			servers[w] = append(servers[w], s.op.Server)
		}
	}
	for i := range p.infos {
		p.infos[i].Servers = servers[p.infos[i].Name]
	}
	// Binds of a protocol that only others speak are an error: a mapping is loaded with all of them.
	for _, proto := range p.req.Protocols {
		if !slices.ContainsFunc(p.infos, func(i mapping.WrapperInfo) bool { return i.Protocol.Name == proto.Name }) {
			p.infos = append(p.infos, mapping.WrapperInfo{Protocol: proto, Name: proto.Name, Upstream: true, Listens: true})
		}
	}
}

// load tries a mapping.
func (p *proposer) load(hcl string) (*mapping.Set, diag.Diagnostics) {
	return mapping.Load(mapping.Input{Files: []diag.File{{Name: "proposal.hcl", Bytes: []byte(hcl)}}, Wrappers: p.infos, Domains: []string{"local"}})
}

// probe finds out which codecs the language has.
func (p *proposer) probe() {
	p.can = map[string]bool{}
	if len(p.infos) == 0 {
		return
	}
	proto := p.infos[0].Protocol
	address := "probe" + proto.Syntax.Separator + "{x}"
	if proto.Syntax.Absolute {
		address = proto.Syntax.Separator + address
	}
	for name, body := range map[string]string{
		"form": "codec = form", "xml": `codec = xml("root")`, "csv": `codec = csv(";")`,
		"each": "codec = csv(\";\")\n each = payload\n key = { y = row.y }\n map = { z = row.z }",
	} {
		register := "probe/{x}"
		if name == "each" {
			register = "probe/{x}/{y}"
		}
		set, _ := p.load(fmt.Sprintf("register %q {\n bind %q %q {\n direction = \"in\"\n wrapper = [%q]\n %s\n }\n}\n", register, proto.Name, address, p.infos[0].Name, body))
		p.can[name] = set != nil
	}
}

// leftList is what nothing is proposed for, most first.
func (p *proposer) leftList() []Left {
	var out []Left
	for l, n := range p.left {
		l.Count = n
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b Left) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Protocol, b.Protocol), strings.Compare(a.Address, b.Address), strings.Compare(a.Why, b.Why))
	})
	return out
}
