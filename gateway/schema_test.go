package gateway

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/http"
	"github.com/spooksystems/gateway/wrappers/mqtt"
)

// Every attribute that the loader knows is described, and no other.
func TestSchema(t *testing.T) {
	s := Describe([]wrappers.Protocol{mqtt.Protocol, http.Protocol})
	blocks := map[string]bool{}
	var look func(path string, b mapping.BlockForm)
	look = func(path string, b mapping.BlockForm) {
		path += "/" + b.Type
		blocks[path] = true
		if len(b.Attributes) == 0 {
			t.Errorf("%s: a block without attributes", path)
		}
		for _, a := range b.Attributes {
			if a.Name == "" || a.Type == "" || a.Doc == "" {
				t.Errorf("%s: the attribute %q is not described: %+v", path, a.Name, a)
			}
		}
		for _, inner := range b.Blocks {
			look(path, inner)
		}
	}
	look("gateway", s.Gateway)
	for _, b := range s.Mapping.Blocks {
		look("mapping", b)
	}
	for _, want := range []string{
		"gateway//wrapper/tls", "gateway//wrapper/limits", "gateway//user", "gateway//daemon", "gateway//log",
		"mapping/register/bind", "mapping/bind", "mapping/ignore", "mapping/test",
	} {
		if !blocks[want] {
			t.Errorf("no block %s", want)
		}
	}
	for block, known := range attributeForms {
		for name := range known {
			if !slices.ContainsFunc(everyAttribute(s.Gateway, block), func(a mapping.AttributeForm) bool { return a.Name == name }) {
				t.Errorf("%q of %q is described and unknown to the loader", name, block)
			}
		}
	}
	for _, p := range s.Protocols {
		for _, a := range append(p.Bind, p.Wrapper...) {
			if a.Type == "" || a.Doc == "" {
				t.Errorf("%s: %q is not described", p.Name, a.Name)
			}
		}
	}
	if len(s.Mapping.Functions) < 30 || len(s.Mapping.Codecs) < 6 || len(s.Mapping.Rules) < 8 || len(s.Mapping.Types) < 8 ||
		!slices.Contains(s.Mapping.Names.Outward, "self") || !slices.Contains(s.Mapping.Names.Inward, "meta") || !slices.Contains(s.Mapping.Names.Always, "payload") {
		t.Errorf("%+v", s.Mapping)
	}
	if _, err := json.Marshal(s); err != nil {
		t.Error(err)
	}
}

func everyAttribute(b mapping.BlockForm, block string) []mapping.AttributeForm {
	var out []mapping.AttributeForm
	if b.Type == block {
		out = b.Attributes
	}
	for _, inner := range b.Blocks {
		out = append(out, everyAttribute(inner, block)...)
	}
	return out
}
