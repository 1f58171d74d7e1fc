package gateway

import (
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
)

// FormatHCL gives a file in canonical layout, or what keeps it from being HCL.
func FormatHCL(name string, src []byte) ([]byte, diag.Diagnostics) {
	return mapping.Format(diag.File{Name: name, Bytes: src})
}
