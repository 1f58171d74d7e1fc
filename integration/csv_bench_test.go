package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkPutCSV is a PUT of a CSV of 10,000 rows to a virtual HTTP wrapper, until its batch is durable: each row another
// value than before, or one of them. BenchmarkGetCSV reads it back.
func BenchmarkPutCSV(b *testing.B) {
	g := newGateway(b, virtualWrappers, payloadMapping).start()
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
	put := func(doc string) {
		req, err := http.NewRequest("PUT", g.httpURL()+"/recipes/big", strings.NewReader(doc))
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Content-Type", "text/csv")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode/100 != 2 {
			b.Fatal(resp.Status)
		}
	}
	round := 0
	for _, changed := range []int{10_000, 1} {
		b.Run(fmt.Sprintf("changed=%d", changed), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				round++
				doc := text(round, changed)
				b.StartTimer()
				put(doc)
			}
		})
	}
}

func BenchmarkGetCSV(b *testing.B) {
	g := newGateway(b, virtualWrappers, payloadMapping).start()
	var s strings.Builder
	s.WriteString("name;value;unit\n")
	for i := range 10_000 {
		fmt.Fprintf(&s, "p%05d;%d;kg\n", i, i)
	}
	if status, _, body := request(b, oneShot, "PUT", g.httpURL()+"/recipes/big", s.String(), "Content-Type", "text/csv"); status/100 != 2 {
		b.Fatal(status, body)
	}
	for b.Loop() {
		if status, _, body := request(b, oneShot, "GET", g.httpURL()+"/recipes/big", ""); status != 200 || body != s.String() {
			b.Fatal(status)
		}
	}
}
