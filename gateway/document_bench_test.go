package gateway

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// BenchmarkDocument is a CSV of 10,000 rows written to a virtual wrapper whose log is in memory: each row another value than
// before, or one of them; and read.
func BenchmarkDocument(b *testing.B) {
	store, err := engine.Open(engine.Options{Dir: "data", FS: vfs.NewMem(), MinFree: 1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	info := virtualDocs()
	in := mapping.Input{Domains: []string{"local"}, Wrappers: []mapping.WrapperInfo{{Protocol: info.Protocol, Name: info.Name, Listens: true}}}
	in.Files = []diag.File{{Name: "t.hcl", Bytes: []byte(`
register "recipe/{recipe}/{param}" {
  fields = { value = number, unit = string }
  bind "docs" "/recipes/{recipe}" {
    codec = csv(";")
    each  = payload
    key   = { param = row.name }
    map   = { value = number(row.value), unit = row.unit }
  }
}
`)}}
	set, found := mapping.Load(in)
	if set == nil {
		b.Fatal(found.Err())
	}
	links := NewLinks(LinksOptions{Store: store})
	links.Use(&Generation{Number: 1, Set: set})
	link := links.Open(info)
	text := func(round, changed int) string {
		var s strings.Builder
		s.WriteString("name;value;unit\n")
		for i := range 10_000 {
			v := i
			if i < changed {
				v += round
			}
			fmt.Fprintf(&s, "p%05d;%d;kg\n", i, v)
		}
		return s.String()
	}
	round := 0
	for _, changed := range []int{10_000, 1} {
		b.Run(fmt.Sprintf("put/changed=%d", changed), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				round++
				op := doc(wrappers.Put, "/recipes/big", text(round, changed))
				b.StartTimer()
				if _, err := link.Do(b.Context(), op); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := link.Do(b.Context(), doc(wrappers.Read, "/recipes/big", "")); err != nil {
				b.Fatal(err)
			}
		}
	})
}
