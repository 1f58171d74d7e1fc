package mapping

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/spooksystems/gateway/mapping/diag"
)

// Format gives a file its canonical layout, for `spookgw fmt`. A file that can't be parsed is not
// touched, and its mistakes are returned.
func Format(f diag.File) ([]byte, diag.Diagnostics) {
	l := diag.NewLog([]diag.File{f})
	if l.Parse(); l.HasErrors() {
		return f.Bytes, l.Diagnostics()
	}
	out := hclwrite.Format(f.Bytes)
	// Layout only: the tokens must be what they were.
	if _, diags := hclsyntax.ParseConfig(out, f.Name, hcl.InitialPos); diags.HasErrors() {
		return f.Bytes, nil
	}
	return out, nil
}
