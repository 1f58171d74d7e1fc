package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/daemonclient/wire"
)

const partsMapping = `
register "part/{id}" {
  fields = { stock = number, shelf = string }
  bind "mqtt" "parts/{id}" {}
  bind "sql" "parts" {
    key = { id = payload.id }
  }
  bind "ldap" "cn={id},ou=parts" {
    map    = { stock = number(payload.description), shelf = payload.serialNumber }
    create = { objectClass = ["device"] }
  }
}
`

// A siteServers is a gateway in front of three real servers: a broker, a database and a directory.
type siteServers struct {
	*spookgw
	broker, sqlPort, ldapPort int
	pg                        *pgServer
	dir                       *slapdServer
	did                       []string // what was done here, in order
}

// ways are those on which a change is made.
var ways = []string{"broker", "database", "directory", "MQTT", "SQL", "LDAP"}

const serverWrappers = `
wrapper "mqtt" "floor" {
  listen   = "127.0.0.1:$mqtt"
  upstream = "tcp://127.0.0.1:%d"
}
wrapper "sql" "erp" {
  listen   = "127.0.0.1:%d"
  upstream = "postgres://postgres@127.0.0.1:%d/plant"
}
wrapper "ldap" "hq" {
  listen   = "127.0.0.1:%d"
  upstream = "ldap://127.0.0.1:%d"
  base     = "dc=plant"
  user     = "` + slapdGateway + `"
  password = env("PLANT_PASSWORD", "secret")
}
`

// newSiteServers makes two, paired: b calls a.
func newSiteServers(t testing.TB) (both [2]*siteServers, line *siteLine) {
	t.Helper()
	var wrappers [2]string
	for i := range both {
		s := &siteServers{broker: freePort(t), sqlPort: freePort(t), ldapPort: freePort(t), pg: newPostgres(t), dir: newSlapd(t, syncprov)}
		startMosquitto(t, t.TempDir(), s.broker)
		must(t, s.pg.psql, "-h", "127.0.0.1", "-p", fmt.Sprint(s.pg.port), "-U", "postgres", "-qc", "CREATE DATABASE plant")
		s.pg.sql("CREATE TABLE parts (id text PRIMARY KEY, stock numeric, shelf text);")
		s.dir.unit("parts")
		wrappers[i] = fmt.Sprintf(serverWrappers, s.broker, s.sqlPort, s.pg.port, s.ldapPort, s.dir.port)
		both[i] = s
	}
	a, b, line := newSites(t, wrappers, partsMapping)
	both[0].spookgw, both[1].spookgw = a, b
	for _, s := range both {
		s.stands()
	}
	agree(t, a, b)
	return both, line
}

// stands waits until all that a server does by itself would be seen.
func (s *siteServers) stands() {
	s.t.Helper()
	eventually(s.t, "the feeds stand", func() bool {
		m := s.metrics()
		return m[`spookgw_wrapper_events_total{event="feed_up",wrapper="erp"}`] >= 1 && m[`spookgw_wrapper_events_total{event="feed_up",wrapper="hq"}`] >= 1
	})
}

// A part is what all six servers are to hold of one register.
type part struct{ stock, shelf string }

// rows, topics and entries are what the three servers hold; registers, what the gateway does.
func (s *siteServers) rows() map[string]part {
	out := map[string]part{}
	for l := range strings.Lines(s.pg.sql("SELECT id, coalesce(stock::text, ''), coalesce(shelf, '') FROM parts;")) {
		f := strings.Split(strings.TrimSuffix(l, "\n"), "|")
		out[f[0]] = part{f[1], f[2]}
	}
	return out
}

func partOf(t testing.TB, document string) part {
	t.Helper()
	var doc struct {
		Stock json.Number
		Shelf string
	}
	if err := json.Unmarshal([]byte(document), &doc); err != nil {
		t.Fatalf("%s: %v", document, err)
	}
	return part{doc.Stock.String(), doc.Shelf}
}

func (s *siteServers) topics() map[string]part {
	c := dialMQTT(s.t, loopback(s.broker), mqttOptions{id: fmt.Sprintf("look-%d", freePort(s.t))})
	defer c.Close()
	c.subscribe(s.t, "parts/#", 0)
	c.Write(frame(mPingreq))
	out := map[string]part{}
	for {
		f, err := c.next()
		if err != nil {
			s.t.Fatal(err)
		}
		if f[0] == mPingresp {
			return out
		}
		if m, err := c.parse(f); err == nil && m.retain {
			out[strings.TrimPrefix(m.topic, "parts/")] = partOf(s.t, m.payload)
		}
	}
}

func (s *siteServers) entries() map[string]part {
	out := map[string]part{}
	for dn, lines := range s.dir.search("dc=plant", "(objectClass=device)", "description", "serialNumber") {
		var p part
		for _, l := range lines {
			switch name, v, _ := strings.Cut(l, ": "); name {
			case "description":
				p.stock = v
			case "serialNumber":
				p.shelf = v
			}
		}
		out[strings.TrimPrefix(strings.Split(dn, ",")[0], "cn=")] = p
	}
	return out
}

func (s *siteServers) registers() map[string]part {
	st := s.state()
	defer st.Close()
	out := map[string]part{}
	for b, err := range st.List(s.t.Context(), "part/", "", 0) {
		if err != nil {
			s.t.Fatal(err)
		}
		out[strings.TrimPrefix(b.Register, "part/")] = partOf(s.t, string(b.Value.AppendJSON(nil)))
	}
	return out
}

// write makes a change on one of six ways, three of them straight at the servers, and returns when the server has said that
// it is done. An empty stock or shelf is left as it is.
func (s *siteServers) write(way int, id string, p part) {
	s.t.Helper()
	s.did = append(s.did, fmt.Sprintf("%s %s = %+v by %s", time.Now().Format(time.StampMilli), id, p, ways[way]))
	through := way >= 3
	switch way % 3 {
	case 0:
		var members []string
		if p.stock != "" {
			members = append(members, `"stock":`+p.stock)
		}
		if p.shelf != "" {
			members = append(members, `"shelf":"`+p.shelf+`"`)
		}
		s.publish(through, id, "{"+strings.Join(members, ",")+"}")
	case 1:
		var set []string
		stock, shelf := "NULL", "NULL"
		if p.stock != "" {
			stock, set = p.stock, append(set, "stock = excluded.stock")
		}
		if p.shelf != "" {
			shelf, set = "'"+p.shelf+"'", append(set, "shelf = excluded.shelf")
		}
		s.statement(through, fmt.Sprintf("INSERT INTO parts VALUES ('%s', %s, %s) ON CONFLICT (id) DO UPDATE SET %s;", id, stock, shelf, strings.Join(set, ", ")))
	case 2:
		dn := fmt.Sprintf("dn: cn=%s,ou=parts,dc=plant\n", id)
		var add, set string
		if p.stock != "" {
			add, set = add+"description: "+p.stock+"\n", set+"replace: description\ndescription: "+p.stock+"\n-\n"
		}
		if p.shelf != "" {
			add, set = add+"serialNumber: "+p.shelf+"\n", set+"replace: serialNumber\nserialNumber: "+p.shelf+"\n-\n"
		}
		if code, _ := s.modify(through, dn+"changetype: modify\n"+set); code == 32 {
			if code, out := s.modify(through, dn+"changetype: add\nobjectClass: device\n"+add); code != 0 {
				s.t.Fatalf("ldapmodify: %d %s", code, out)
			}
		} else if code != 0 {
			s.t.Fatalf("ldapmodify: %d", code)
		}
	}
}

func (s *siteServers) remove(way int, id string) {
	s.t.Helper()
	s.did = append(s.did, fmt.Sprintf("%s %s deleted by %s", time.Now().Format(time.StampMilli), id, ways[way]))
	through := way >= 3
	switch way % 3 {
	case 0:
		s.publish(through, id, "")
	case 1:
		s.statement(through, fmt.Sprintf("DELETE FROM parts WHERE id = '%s';", id))
	case 2:
		if code, out := s.modify(through, fmt.Sprintf("dn: cn=%s,ou=parts,dc=plant\nchangetype: delete\n", id)); code != 0 {
			s.t.Fatalf("ldapmodify: %d %s", code, out)
		}
	}
}

func (s *siteServers) publish(through bool, id, payload string) {
	s.t.Helper()
	addr := loopback(s.broker)
	if through {
		addr = s.mqttAddr()
	}
	c := dialMQTT(s.t, addr, mqttOptions{id: fmt.Sprintf("w-%d", freePort(s.t))})
	defer c.Close()
	c.publish(s.t, "parts/"+id, payload, true)
}

func (s *siteServers) statement(through bool, text string) {
	s.t.Helper()
	port := s.pg.port
	if through {
		port = s.sqlPort
	}
	s.pg.through(port, text)
}

func (s *siteServers) modify(through bool, ldif string) (code int, out string) {
	s.t.Helper()
	uri := s.dir.uri()
	if through {
		uri = fmt.Sprintf("ldap://127.0.0.1:%d", s.ldapPort)
	}
	_, out, code = run(s.t, ldif, "ldapmodify", "-x", "-H", uri, "-D", slapdAdmin, "-w", "secret")
	return code, out
}

// serversAgree waits until both gateways and all six servers hold the same, which holds what is wanted, and gives that.
func serversAgree(t *testing.T, both [2]*siteServers, wanted func(map[string]part) (id, why string)) map[string]part {
	t.Helper()
	names := []string{"registers", "rows", "topics", "entries"}
	var have [8]map[string]part
	wrong, why := "", ""
	if !within(3*patience, func() bool {
		for i, s := range both {
			for j, look := range []func() map[string]part{s.registers, s.rows, s.topics, s.entries} {
				have[i*4+j] = look()
			}
		}
		for i := range have {
			if !maps.Equal(have[0], have[i]) {
				wrong, why = "", "they differ"
				return false
			}
		}
		wrong, why = wanted(have[0])
		return why == ""
	}) {
		all := map[string]bool{}
		all[wrong] = wrong != ""
		delete(all, "")
		for _, h := range have {
			for id := range h {
				all[id] = true
			}
		}
		for _, id := range slices.Sorted(maps.Keys(all)) {
			same := true
			for _, h := range have {
				same = same && h[id] == have[0][id]
			}
			if same && id != wrong {
				continue
			}
			for i, h := range have {
				p, ok := h[id]
				t.Logf("%s: site %d, %s: %+v %v", id, i/4, names[i%4], p, ok)
			}
			for i, s := range both {
				for _, did := range s.did {
					if strings.Contains(did, " "+id+" ") || strings.HasSuffix(did, "killed") {
						t.Logf("site %d, %s", i, did)
					}
				}
				explained, _, _ := s.try("explain", "part/"+id)
				history, _, _ := s.try("history", "part/"+id)
				t.Logf("site %d says\n%s%s", i, explained, history)
			}
		}
		for _, s := range both {
			t.Log(s.cli("parked"))
		}
		t.Fatalf("after %v: %s", 3*patience, why)
	}
	agree(t, both[0].spookgw, both[1].spookgw)
	return have[0]
}

// wantWinners holds what `explain` says of each register against what all servers hold.
func wantWinners(t *testing.T, s *siteServers, have map[string]part) {
	t.Helper()
	for id, p := range have {
		var x wire.Explanation
		if err := json.Unmarshal([]byte(s.cli("explain", "part/"+id, "--json")), &x); err != nil {
			t.Fatal(err)
		}
		for _, f := range x.Fields {
			wins := 0
			for _, e := range f.Entries {
				if e.Wins {
					wins++
					if v := strings.Trim(string(e.Value), `"`); v != p.stock && v != p.shelf {
						t.Errorf("part/%s.%s: the winner has %s, all servers %+v", id, f.Field, v, p)
					}
					if e.Cause == nil || e.Cause.Wrapper == "" || e.Dot == "" {
						t.Errorf("part/%s.%s: the winner is %+v", id, f.Field, e)
					}
				}
			}
			if wins != 1 {
				t.Errorf("part/%s.%s: %d winners", id, f.Field, wins)
			}
		}
		if text := s.cli("explain", "part/"+id); !strings.Contains(text, "▸") {
			t.Errorf("no winner in\n%s", text)
		}
	}
}

// TestSitesServers: two gateways, each in front of its own broker, database and directory. With the line cut at random
// moments, and gateways killed, all six servers are written to through the gateways and straight, at the same and at
// different places, and things are deleted; afterwards all hold the same, and nothing that was acknowledged is lost.
func TestSitesServers(t *testing.T) {
	dice := diceOf(t)
	both, line := newSiteServers(t)
	owed := map[string]part{}     // what nobody else writes, as it is to be
	gone := map[string]bool{}     // what was deleted by who knew all of it
	var settled map[string]part   // what all held last
	either := map[string][]part{} // what was written at both sites at once: one of these, or more recent
	n := 0
	for round := range rounds(t, 4) {
		clear(either)
		cutAt, killAt := dice.IntN(6), -1
		if round%2 == 1 {
			killAt = dice.IntN(12)
		}
		for step := range 12 {
			if step == cutAt {
				line.set(true)
			}
			if step == killAt {
				g := both[dice.IntN(2)]
				g.did = append(g.did, time.Now().Format(time.StampMilli)+" killed")
				g.kill()
				g.start()
				g.stands()
			}
			n++
			site, way := dice.IntN(2), dice.IntN(6)
			fresh := func() part { return part{fmt.Sprint(n), fmt.Sprintf("s%d", n)} }
			switch known := knownParts(settled, owed, either, gone); {
			case step < cutAt || len(known) < 4 || dice.IntN(3) == 0:
				id := fmt.Sprintf("own%d", n)
				owed[id] = fresh()
				both[site].write(way, id, owed[id])
			case dice.IntN(4) == 0: // deleted where it was known as it is
				id := known[dice.IntN(len(known))]
				both[site].remove(way, id)
				delete(owed, id)
				gone[id] = true
			case dice.IntN(3) == 0: // different fields on both sides: both stay
				id := known[dice.IntN(len(known))]
				p := fresh()
				both[site].write(partial(dice), id, part{stock: p.stock})
				both[1-site].write(partial(dice), id, part{shelf: p.shelf})
				owed[id] = p
				either[id] = []part{p}
			case dice.IntN(3) == 0: // written here, deleted there: it stays, with what was written
				id := known[dice.IntN(len(known))]
				p := fresh()
				both[site].write(way, id, p)
				both[1-site].remove(dice.IntN(6), id)
				owed[id] = p
				either[id] = []part{p}
			default: // the same on both sides
				id := known[dice.IntN(len(known))]
				p := fresh()
				n++
				q := fresh()
				both[site].write(way, id, p)
				both[1-site].write(dice.IntN(6), id, q)
				either[id] = []part{p, q}
				delete(owed, id)
			}
		}
		line.set(false)
		settled = serversAgree(t, both, func(have map[string]part) (string, string) {
			for id, p := range owed {
				if have[id] != p {
					return id, fmt.Sprintf("round %d: %s is %+v, want %+v", round, id, have[id], p)
				}
			}
			for id, parts := range either {
				if !slices.Contains(parts, have[id]) {
					return id, fmt.Sprintf("round %d: %s is %+v, want one of %+v", round, id, have[id], parts)
				}
			}
			for id := range gone {
				if p, ok := have[id]; ok {
					return id, fmt.Sprintf("round %d: %s was deleted, and is %+v", round, id, p)
				}
			}
			return "", ""
		})
		wantWinners(t, both[round%2], settled)
		if t.Failed() {
			return
		}
	}
	eventually(t, "/metrics says that both are equal", func() bool {
		return both[0].metrics()[`spookgw_site_equal{domain="local",site="b"}`] == 1
	})
	t.Logf("%d parts, %d deleted", len(settled), len(gone))
}

// partial draws a way that can write one field and leave the other: a document of MQTT is the whole.
func partial(dice *rand.Rand) int { return []int{1, 2, 4, 5}[dice.IntN(4)] }

// knownParts are those that both sites hold alike and nobody has touched since.
func knownParts(settled, owed map[string]part, touched map[string][]part, gone map[string]bool) (ids []string) {
	for id, p := range settled {
		if o, ok := owed[id]; ok && o != p || gone[id] || touched[id] != nil {
			continue
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
