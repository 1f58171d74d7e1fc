package mapping

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// Binds of protocols that are to come are checked for what the language says of every bind: names, expressions, types,
// the way back. What the protocol itself will say of addresses and attributes is not known yet.

// laterSyntax is the form of the addresses of protocols that are to come, as far as templates need it.
var laterSyntax = map[string]wrappers.Syntax{
	"coap": {Separator: "/", Absolute: true, Query: true},
	"smb": {Separator: "/", Fold: true, Canonical: func(address string) (string, error) {
		return strings.TrimLeft(address, "/"), nil
	}},
	"ssh": {Separator: "/"},
}

// laterFinds are the codes of what holds of any bind, whatever its protocol.
var laterFinds = []diag.Code{
	"HCL014", "MAP010", "MAP011", "MAP019", "MAP021", "MAP036", "MAP062", "MAP063", "MAP064", "MAP065", "MAP066", "MAP067", "MAP070", "MAP071",
	"MAP072", "MAP073", "MAP074", "MAP080", "MAP081", "MAP082", "MAP083", "MAP084", "MAP085", "MAP086", "MAP088", "MAP090", "MAP091",
	"MAP092", "MAP093", "MAP094", "MAP095", "MAP096", "MAP097", "MAP098", "MAP099", "MAP112", "MAP113", "MAP122",
}

// checkLater reads all once more as if the protocols to come were here, and reports what that finds in their binds.
func (l *loader) checkLater() {
	if len(l.later) == 0 {
		return
	}
	in := l.in
	in.Later, in.Wrappers = nil, slices.Clone(l.in.Wrappers)
	for _, name := range l.in.Later {
		in.Wrappers = append(in.Wrappers, WrapperInfo{
			Name: name, Upstream: true, Listens: true,
			Protocol: wrappers.Protocol{Name: name, Syntax: laterSyntax[name], Messages: true, Replies: true},
		})
	}
	_, found := Load(in)
	for _, d := range found {
		b := l.laterBind(d.Subject)
		if b == nil || !slices.Contains(laterFinds, d.Code) && !(d.Code == "HCL007" && d.Suggestion != "") {
			continue
		}
		l.Add(d)
	}
}

// laterBind gives the block of a protocol to come that a place is in.
func (l *loader) laterBind(r hcl.Range) *hclsyntax.Block {
	for _, b := range l.later {
		if b.TypeRange.Filename == r.Filename && b.TypeRange.Start.Byte <= r.Start.Byte && r.End.Byte <= b.CloseBraceRange.End.Byte {
			return b
		}
	}
	return nil
}
