package mapping

import (
	"slices"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
)

// What is described is what the loader knows: no attribute too few, and none too many.
func TestDescribe(t *testing.T) {
	l := Describe([]wrappers.Protocol{topics, paths})
	for _, b := range l.Blocks {
		known := attributeForms[b.Type]
		if len(b.Attributes) != len(known) {
			t.Errorf("%s has %d attributes, and %d are described", b.Type, len(b.Attributes), len(known))
		}
		for _, a := range b.Attributes {
			if a.Type == "" || a.Doc == "" {
				t.Errorf("%s: %q is not described", b.Type, a.Name)
			}
		}
	}
	if len(l.Blocks) != len(fileSchema.Blocks) {
		t.Errorf("%d blocks, want %d", len(l.Blocks), len(fileSchema.Blocks))
	}
	two := 0
	for _, f := range l.Functions {
		if f.TwoWay {
			two++
		}
	}
	if two != len(twoWays) || len(l.Functions) != len(functionNames()) {
		t.Errorf("%d functions, %d of them two-way", len(l.Functions), two)
	}
	// retain and qos are one protocol's, methods another's: none of them is of a later version.
	register := l.Blocks[0]
	if register.Type != "register" || len(register.Blocks) != 1 || slices.Contains(register.Blocks[0].Later, "qos") || !slices.Contains(register.Blocks[0].Later, "echo") {
		t.Errorf("%+v", register)
	}
}
