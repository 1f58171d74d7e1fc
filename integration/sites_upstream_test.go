package integration

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// TestSitesOneUpstream: two gateways of a domain share three servers. The one that feed names attends to them, the other
// stands by; what is written through either, or straight, comes everywhere once, and neither writes over the other. With the
// line cut the one that stands by keeps what it was told, and it reaches the servers when the line is back.
func TestSitesOneUpstream(t *testing.T) {
	broker := freePort(t)
	startMosquitto(t, t.TempDir(), broker)
	s := &siteServers{broker: broker, pg: newPostgres(t), dir: newSlapd(t, syncprov)}
	must(t, s.pg.psql, "-h", "127.0.0.1", "-p", fmt.Sprint(s.pg.port), "-U", "postgres", "-qc", "CREATE DATABASE plant")
	s.pg.sql(`CREATE TABLE parts (id text PRIMARY KEY, stock numeric, shelf text);
CREATE TABLE writes (id text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO writes VALUES (NEW.id); RETURN NEW; END $$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON parts FOR EACH ROW EXECUTE FUNCTION note();`)
	s.dir.unit("parts")
	wrappers := func(name string) string {
		return fmt.Sprintf(`
wrapper "mqtt" "floor" {
  upstream = "tcp://127.0.0.1:%d"
  feed     = "gw-a"
}
wrapper "sql" "erp" {
  upstream = "postgres://postgres@127.0.0.1:%d/plant"
  feed     = "gw-a"
}
wrapper "ldap" "hq" {
  upstream = "ldap://127.0.0.1:%d"
  base     = "dc=plant"
  user     = %q
  password = env("PLANT_PASSWORD", "secret")
  feed     = "gw-a"
}
wrapper "http" "api" {
  listen    = "127.0.0.1:$http"
  anonymous = "write"
}
`, broker, s.pg.port, s.dir.port, slapdGateway)
	}
	mapping := strings.Replace(partsMapping, `  bind "mqtt"`, `  bind "http" "/v1/{id}" {}
  bind "mqtt" "orders/{id}" {
    direction = "out"
    events    = true
  }
  bind "mqtt"`, 1)
	door := freePort(t)
	a := newGateway(t, wrappers("gw-a")+fmt.Sprintf("sites {\n  name = \"gw-a\"\n  listen = \"127.0.0.1:%d\"\n}\n", door), mapping)
	b := newGateway(t, wrappers("gw-b")+"sites {\n  name = \"gw-b\"\n}\n", mapping)
	line := newSiteLine(t, loopback(door))
	a.start()
	b.start()
	out := strings.Fields(a.cli("pair", "offer", "--name", "b", "--address", line.addr()))
	b.cli("pair", "accept", "--name", "a", out[len(out)-1])
	s.spookgw = a
	s.stands()
	agree(t, a, b)
	var st struct {
		Wrappers []struct{ Name, State string }
	}
	if err := json.Unmarshal([]byte(b.cli("status", "--json")), &st); err != nil {
		t.Fatal(err)
	}
	for _, w := range st.Wrappers {
		if standing := w.State == "standing by"; standing != (w.Name != "api") {
			t.Errorf("wrapper %s of the second gateway is %q", w.Name, w.State)
		}
	}
	box := watchTopic(t, loopback(broker), "orders/+")
	const each = 15
	put := func(g *spookgw, id string, n int) {
		if status, _, body := request(t, oneShot, "PUT", g.httpURL()+"/v1/"+id, fmt.Sprintf(`{"stock":%d,"shelf":"s%d"}`, n, n)); status/100 != 2 {
			t.Errorf("PUT %s: %d %s", id, status, body)
		}
	}
	want := map[string]part{}
	round := func(from int) {
		var wait sync.WaitGroup
		for i, g := range []*spookgw{a, b} {
			wait.Go(func() {
				for n := from; n < from+each; n++ {
					put(g, fmt.Sprintf("of%d-%d", i, n), n)
				}
			})
		}
		for n := from; n < from+3; n++ {
			s.write(n%3, fmt.Sprintf("straight%d", n), part{fmt.Sprint(n), fmt.Sprintf("s%d", n)})
			want[fmt.Sprintf("straight%d", n)] = part{fmt.Sprint(n), fmt.Sprintf("s%d", n)}
		}
		wait.Wait()
		for i := range 2 {
			for n := from; n < from+each; n++ {
				want[fmt.Sprintf("of%d-%d", i, n)] = part{fmt.Sprint(n), fmt.Sprintf("s%d", n)}
			}
		}
	}
	agreeAll := func() {
		t.Helper()
		second := &siteServers{spookgw: b, broker: broker, pg: s.pg, dir: s.dir}
		serversAgree(t, [2]*siteServers{s, second}, func(have map[string]part) (string, string) {
			for id, p := range want {
				if have[id] != p {
					return id, fmt.Sprintf("%s is %+v, want %+v", id, have[id], p)
				}
			}
			return "", ""
		})
	}
	round(100)
	agreeAll()
	line.set(true)
	round(200)
	line.set(false)
	agreeAll()
	// Each row was written once: nobody wrote over the other, and nothing came back as news.
	for l := range strings.Lines(s.pg.sql("SELECT id, count(*) FROM writes GROUP BY id HAVING count(*) > 1;")) {
		t.Errorf("a row was written more than once: %s", l)
	}
	// What can't be done twice is done once, by the gateway that attends to the server, wherever it was made.
	told := map[string]int{}
	left := len(want)
	box.until(t, "every part's order", func(m message) bool {
		if told[m.topic]++; told[m.topic] == 1 {
			left--
		}
		return left == 0
	})
	c := dialMQTT(t, loopback(broker), mqttOptions{id: "end"})
	c.publish(t, "orders/end", "{}", false)
	box.until(t, "the end", func(m message) bool { told[m.topic]++; return strings.HasSuffix(m.topic, "/end") })
	for id := range want {
		if n := told["orders/"+id]; n != 1 {
			t.Errorf("orders/%s was told %d times", id, n)
		}
	}
}
