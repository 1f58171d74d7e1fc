package gateway

import (
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/spooksystems/gateway/mapping/diag"
)

// FormatHCL gives a file in canonical layout, or what keeps it from being HCL.
func FormatHCL(name string, src []byte) ([]byte, diag.Diagnostics) {
	log := diag.NewLog([]diag.File{{Name: name, Bytes: src}})
	log.Parse()
	if found := log.Diagnostics(); found.HasErrors() {
		return nil, found
	}
	return hclwrite.Format(src), nil
}
