package trial

import (
	"testing"

	"github.com/spooksystems/gateway/gateway"
)

// Rows that are there before a server is met are one document there, asked for once.
func TestRowsGiven(t *testing.T) {
	files := inMemory{"gateway.hcl": `
wrapper "http" "http" {
  listen   = "127.0.0.1:18099"
  upstream = "http://127.0.0.1:18098"
}
wrapper "mqtt" "mqtt" {
  listen = "127.0.0.1:18097"
}
`, "m.hcl": `
register "order/{order}/{line}" {
  fields = { article = string }
  bind "http" "/orders/{order}" {
    each   = payload
    key    = { line = row.line }
  }
  bind "mqtt" "orders/{order}/{line}" {}
}
test "one more line" {
  given = { "order/1/1" = {article = "bolt"} }
  send = { mqtt = "orders/1/2", payload = {article = "nut"} }
  want = { "order/1/1" = {article = "bolt"} }
  told = { http = { "/orders/1" = [{ line = "1", article = "bolt" }, { line = "2", article = "nut" }] } }
}
`}
	config, found := gateway.LoadConfig(gateway.LoadRequest{File: "gateway.hcl", Mappings: []string{"m.hcl"}, Sources: files, Protocols: protocols})
	if config == nil {
		t.Fatal(found.Err())
	}
	v, err := Run(t.Context(), config.Set, config.Links(), config.Set.Tests()[0])
	if err != nil || len(v.Failed) > 0 {
		t.Errorf("%v %+v", err, v.Failed)
	}
}
