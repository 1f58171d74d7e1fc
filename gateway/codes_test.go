package gateway

import (
	"slices"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/mapping/diag"
)

// The example of every page of a code of gateway.hcl has that mistake.
func TestCodes(t *testing.T) {
	tried := 0
	for _, code := range diag.Codes() {
		e, err := diag.Explain(string(code))
		if err != nil {
			t.Fatal(err)
		}
		if e.Example == "" || !strings.Contains(e.Meaning, "In gateway.hcl:") {
			continue
		}
		_, found := LoadConfig(LoadRequest{File: "gateway.hcl", Sources: memory{"gateway.hcl": []byte(e.Example)}, Protocols: realProtocols})
		tried++
		if !slices.ContainsFunc(found, func(d *diag.Diagnostic) bool { return d.Code == code }) {
			t.Errorf("%s: its example does not have it: %v", code, found)
		}
	}
	if tried < 20 {
		t.Errorf("only %d examples", tried)
	}
}
