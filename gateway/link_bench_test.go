package gateway

import (
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// BenchmarkStart is the gateway's share of a durable publish: 20 in flight, one follower.
func BenchmarkStart(b *testing.B) {
	store, err := engine.Open(engine.Options{Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler), MinFree: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	info := virtualTalk()
	set, diags := mapping.Load(mapping.Input{
		Files: []diag.File{{Name: "b.hcl", Bytes: []byte(`register "oven/{o}" {
  bind "talk" "oven/{o}" {}
}`)}},
		Wrappers: []mapping.WrapperInfo{{Protocol: talk, Name: "talk", Listens: true}}, Domains: []string{"local"},
	})
	if diags.HasErrors() {
		b.Fatal(diags)
	}
	links := NewLinks(LinksOptions{Store: store})
	links.Use(&Generation{Number: 1, Set: set})
	link := links.Open(info)
	told := make(chan struct{}, 20)
	changes := link.Follow(b.Context(), wrappers.Notify, "")
	go func() {
		for _, err := range changes {
			if err != nil {
				return
			}
			told <- struct{}{}
		}
	}()
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range b.N {
		if i >= 20 {
			<-told
		}
		op := doc(wrappers.Message, fmt.Sprintf("oven/%d", i%100), fmt.Sprintf(`{"value":%d}`, i))
		op.Tag = uint64(i + 1)
		wait, err := link.Start(b.Context(), op)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			if _, err := wait(); err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
}
