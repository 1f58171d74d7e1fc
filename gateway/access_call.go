package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// An AccessAnswer says whether somebody may read and write a register, and which lines say so.
type AccessAnswer struct {
	Who      string        `json:"who"`
	Register string        `json:"register"`
	Read     AccessVerdict `json:"read"`
	Write    AccessVerdict `json:"write"`
	// Except are the binds that narrow this for their addresses.
	Except []AccessExcept `json:"except,omitempty"`
}

// An AccessVerdict is one half of it.
type AccessVerdict struct {
	May    bool   `json:"may"`
	Source string `json:"source,omitempty"` // file:line
	Why    string `json:"why"`
}

// An AccessExcept is what somebody who may otherwise may not at one bind's addresses.
type AccessExcept struct {
	Bind    string `json:"bind"`    // file:line
	Address string `json:"address"` // as protocol and template
	Verb    string `json:"verb"`    // read or write
	Why     string `json:"why"`
}

// callAccess answers for anybody: what the files say is no secret to who may use the socket.
func (g *Gateway) callAccess(_ context.Context, _ *session, params json.RawMessage) (any, error) {
	var name, register string
	if err := wire.Members(params, wire.Member{Name: "who", Into: &name}, wire.Member{Name: "register", Into: &register}); err != nil {
		return nil, paramError(err)
	}
	gen := g.generation.Load()
	who, err := gen.config.peerNamed(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", engine.ErrNotFound, err)
	}
	a := AccessAnswer{Who: who.String(), Register: register}
	a.Read, a.Write = gen.config.verdict(who, register, wrappers.ReadAccess), gen.config.verdict(who, register, wrappers.WriteAccess)
	for _, b := range gen.Set.Binds() {
		if !b.Has(register) || who.wrapper != "" && !slices.Contains(b.Wrappers(), who.wrapper) {
			continue
		}
		except := func(may bool, verb string, need wrappers.Access) {
			if v := gen.Access.bind(who, b, need); may && !v.ok {
				a.Except = append(a.Except, AccessExcept{b.Source(), b.Protocol() + " " + b.Address(), verb, v.why})
			}
		}
		except(a.Read.May && b.Outward(), "read", wrappers.ReadAccess)
		except(a.Write.May && b.Inward(), "write", wrappers.WriteAccess)
	}
	return a, nil
}

// peerNamed gives whom a name as in lists of who may means: one person, or those of a wrapper whom nobody knows.
func (c *Config) peerNamed(name string) (principal, error) {
	protocol, rest, ok := strings.Cut(name, "/")
	if !ok {
		known := slices.ContainsFunc(c.Users, func(u User) bool { return u.Name == name })
		if name == "" || strings.ContainsAny(name, "@*:") {
			return principal{}, fmt.Errorf("%q is not one person: a user is meant, or protocol/wrapper, or protocol/wrapper:name", name)
		}
		p := principal{name: name, user: true}
		if !known {
			p.protocol = doorProtocol // only there a name without a user block is anybody's
		}
		return p, nil
	}
	wrapper, user, _ := strings.Cut(rest, ":")
	if protocol == doorProtocol {
		return principal{protocol: doorProtocol, name: user, user: true}, nil
	}
	var names []string
	for i := range c.Wrappers {
		w := &c.Wrappers[i]
		if w.Protocol.Name == protocol && w.Name == wrapper {
			p := principal{protocol: protocol, wrapper: wrapper, name: user}
			p.user = user != "" && w.Virtual()
			return p, nil
		}
		names = append(names, w.Protocol.Name+"/"+w.Name)
	}
	if s := diag.Suggest(protocol+"/"+wrapper, names); s != "" {
		return principal{}, fmt.Errorf("no wrapper here is %s/%s; did you mean %s?", protocol, wrapper, s)
	}
	return principal{}, fmt.Errorf("no wrapper here is %s/%s", protocol, wrapper)
}

// verdict is what the configuration says of somebody and a register, whatever the address.
func (c *Config) verdict(who principal, register string, need wrappers.Access) AccessVerdict {
	if who.name == "" && who.wrapper != "" {
		i := slices.IndexFunc(c.Wrappers, func(w WrapperBlock) bool { return w.Name == who.wrapper })
		if w := &c.Wrappers[i]; w.Virtual() && w.Anonymous < need {
			return AccessVerdict{Source: w.source, Why: "who has not logged on may not, as `anonymous` has it"}
		}
	}
	v := c.Policy.register(who, register, need)
	if !v.ok && who.user && who.protocol == "" {
		// Those who come through some wrapper may, whoever they are.
		for i := range c.Wrappers {
			w := &c.Wrappers[i]
			there := principal{protocol: w.Protocol.Name, wrapper: w.Name, name: who.name, user: true}
			if way := c.Policy.register(there, register, need); w.Virtual() && way.ok {
				return AccessVerdict{May: true, Source: way.source, Why: way.why + ", and so only through it"}
			}
		}
	}
	return AccessVerdict{May: v.ok, Source: v.source, Why: v.why}
}
