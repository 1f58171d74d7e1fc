package integration

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const entryMapping = `
register "site/{site}/{sensor}" {
  fields = { value = number, unit = string, tags = union(string) }
  bind "mqtt" "sensors/{site}/{sensor}" {}
  bind "http" "/v1/{site}/{sensor}" {}
  bind "ldap" "cn={sensor},ou={site}" {
    map    = { value = number(payload.description), unit = payload.serialNumber, tags = payload.l }
    create = { objectClass = ["device"] }
  }
}
`

// A slapdServer is a real directory of a test's own, with the suffix dc=plant.
type slapdServer struct {
	*process
	t    testing.TB
	dir  string
	port int
	bin  string
}

const (
	slapdAdmin   = "cn=admin,dc=plant"
	slapdGateway = "cn=gateway,dc=plant"
)

func newSlapd(t testing.TB, database string) *slapdServer { return newSlapdWith(t, "", database) }

// newSlapdWith has more of the configuration that stands before databases.
func newSlapdWith(t testing.TB, global, database string) *slapdServer {
	t.Helper()
	s := &slapdServer{t: t, dir: t.TempDir(), port: freePort(t), bin: peer(t, "slapd", "slapd")}
	peer(t, "ldapmodify", "ldap-utils")
	if err := os.Mkdir(filepath.Join(s.dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(s.dir, "slapd.conf"), fmt.Sprintf(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload syncprov
%s
database mdb
suffix dc=plant
rootdn %s
rootpw secret
directory %s/db
maxsize 268435456
sizelimit unlimited
index objectClass,entryUUID,entryCSN eq
access to * by dn.exact=%s manage by * read
%s
`, global, slapdAdmin, s.dir, slapdGateway, database))
	s.up()
	s.ldif(`dn: dc=plant
changetype: add
objectClass: domain
dc: plant

dn: ` + slapdGateway + `
changetype: add
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: gateway
userPassword: secret
`)
	return s
}

func (s *slapdServer) uri() string { return fmt.Sprintf("ldap://127.0.0.1:%d", s.port) }

func (s *slapdServer) up() {
	s.t.Helper()
	if s.process != nil {
		s.process.past = true
	}
	s.process = startProcess(s.t, "slapd", exec.Command(s.bin, "-f", filepath.Join(s.dir, "slapd.conf"), "-h", s.uri(), "-d", "0"))
	eventually(s.t, "slapd answers", func() bool {
		return exec.Command("ldapsearch", "-x", "-H", s.uri(), "-s", "base", "-b", "", "1.1").Run() == nil
	})
}

// dump gives the whole database, restore replaces it. The server is not running.
func (s *slapdServer) dump() string {
	s.t.Helper()
	return must(s.t, peer(s.t, "slapcat", "slapd"), "-f", filepath.Join(s.dir, "slapd.conf"))
}

func (s *slapdServer) restore(ldif string) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "db", "*.mdb"))
	if err != nil || len(files) == 0 {
		s.t.Fatalf("no database: %v", err)
	}
	for _, name := range files {
		if err := os.Remove(name); err != nil {
			s.t.Fatal(err)
		}
	}
	if _, out, code := run(s.t, ldif, peer(s.t, "slapadd", "slapd"), "-f", filepath.Join(s.dir, "slapd.conf")); code != 0 {
		s.t.Fatalf("slapadd: %s", out)
	}
}

// ldif makes changes, straight at the server.
func (s *slapdServer) ldif(text string) {
	s.t.Helper()
	if _, out, code := run(s.t, text, "ldapmodify", "-x", "-H", s.uri(), "-D", slapdAdmin, "-w", "secret"); code != 0 {
		s.t.Fatalf("ldapmodify: %s\n%s", out, text)
	}
}

func (s *slapdServer) device(site, name, description string) {
	s.t.Helper()
	s.ldif(fmt.Sprintf("dn: cn=%s,ou=%s,dc=plant\nchangetype: add\nobjectClass: device\ndescription: %s\n", name, site, description))
}

func (s *slapdServer) set(site, name, attribute, value string) {
	s.t.Helper()
	s.ldif(fmt.Sprintf("dn: cn=%s,ou=%s,dc=plant\nchangetype: modify\nreplace: %s\n%s: %s\n", name, site, attribute, attribute, value))
}

func (s *slapdServer) unit(site string) {
	s.t.Helper()
	s.ldif(fmt.Sprintf("dn: ou=%s,dc=plant\nchangetype: add\nobjectClass: organizationalUnit\n", site))
}

// search gives entries by DN, with their attributes in the order in which they come: "description: 1".
func (s *slapdServer) search(base, filter string, attributes ...string) map[string][]string {
	s.t.Helper()
	args := append([]string{"-x", "-LLL", "-o", "ldif-wrap=no", "-H", s.uri(), "-D", slapdAdmin, "-w", "secret", "-b", base, filter}, attributes...)
	out, errs, code := run(s.t, "", "ldapsearch", args...)
	if code == 32 {
		return nil
	}
	if code != 0 {
		s.t.Fatalf("ldapsearch: %s", errs)
	}
	found := map[string][]string{}
	for block := range strings.SplitSeq(out, "\n\n") {
		dn := ""
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			if name, b64, ok := strings.Cut(line, ":: "); ok {
				raw, err := base64.StdEncoding.DecodeString(b64)
				if err != nil {
					s.t.Fatal(err)
				}
				line = name + ": " + string(raw)
			}
			if rest, ok := strings.CutPrefix(line, "dn: "); ok {
				dn = rest
				found[dn] = nil
			} else if line != "" {
				found[dn] = append(found[dn], line)
			}
		}
	}
	return found
}

// A directoryPlant is a gateway attached to a real directory, beside an HTTP and an MQTT server of its own.
type directoryPlant struct {
	*spookgw
	dir    *slapdServer
	client *http.Client
}

func newDirectoryPlant(t testing.TB, database, mapping, more string) *directoryPlant {
	t.Helper()
	d := &directoryPlant{dir: newSlapd(t, database), client: keepAlive(t)}
	d.spookgw = newGateway(t, virtualWrappers+fmt.Sprintf(`
wrapper "ldap" "hq" {
  upstream = "ldap://127.0.0.1:%d"
  base     = "dc=plant"
  user     = %q
  password = env("PLANT_PASSWORD", "secret")
  %s
}
`, d.dir.port, slapdGateway, more), mapping)
	return d
}

// stands waits until the feed stands, for the n-th time.
func (d *directoryPlant) stands(n int) {
	d.t.Helper()
	eventually(d.t, "the feed stands", func() bool {
		return d.metrics()[`spookgw_wrapper_events_total{event="feed_up",wrapper="hq"}`] >= float64(n)
	})
}

func (d *directoryPlant) put(path, body string) {
	d.t.Helper()
	if status, _, text := request(d.t, d.client, "PUT", d.httpURL()+path, body); status >= 300 {
		d.t.Fatalf("PUT %s: %d %s", path, status, text)
	}
}

// registers gives all registers below a prefix, as JSON.
func (d *directoryPlant) registers(prefix string) map[string]string {
	d.t.Helper()
	s := d.state()
	defer s.Close()
	out := map[string]string{}
	for b, err := range s.List(d.t.Context(), prefix, "", 0) {
		if err != nil {
			d.t.Fatal(err)
		}
		if b.Exists {
			out[b.Register] = string(b.Value.AppendJSON(nil))
		}
	}
	return out
}

// entries gives what the registers are to be, entry by entry.
func (d *directoryPlant) entries() map[string]string {
	d.t.Helper()
	want := map[string]string{}
	for dn, lines := range d.dir.search("dc=plant", "(objectClass=device)", "description", "serialNumber") {
		parts := strings.Split(dn, ",")
		var value, unit string
		for _, l := range lines {
			name, v, _ := strings.Cut(l, ": ")
			switch name {
			case "description":
				value = v
			case "serialNumber":
				unit = v
			}
		}
		var members []string
		if unit != "" {
			members = append(members, `"unit":`+strconv.Quote(unit))
		}
		if value != "" {
			members = append(members, `"value":`+value)
		}
		want["site/"+strings.TrimPrefix(parts[1], "ou=")+"/"+strings.TrimPrefix(parts[0], "cn=")] = "{" + strings.Join(members, ",") + "}"
	}
	return want
}

// equal waits until the registers are the entries, one by one.
func (d *directoryPlant) equal() {
	d.t.Helper()
	var got, want map[string]string
	if within(patience, func() bool {
		got, want = d.registers("site/"), d.entries()
		return maps.Equal(got, want)
	}) {
		return
	}
	for k, v := range want {
		if got[k] != v {
			d.t.Errorf("%s: the register is %s, the entry %s\n%s", k, got[k], v, d.cli("history", k))
		}
	}
	for k, v := range got {
		if _, ok := want[k]; !ok {
			d.t.Errorf("%s: the register is %s, and there is no entry\n%s", k, v, d.cli("history", k))
		}
	}
	d.t.Logf("%s\n%s", d.cli("status"), d.cli("parked"))
}

// has waits until an entry has exactly these attributes; none: it is not there.
func (d *directoryPlant) has(dn string, want string, attributes ...string) {
	d.t.Helper()
	var got string
	if !within(patience, func() bool {
		found := d.dir.search(dn, "(objectClass=*)", attributes...)
		slices.Sort(found[dn])
		got = strings.Join(found[dn], "|")
		if found == nil {
			got = "gone"
		}
		return got == want
	}) {
		d.t.Errorf("%s: got %q, want %q\n%s", dn, got, want, d.cli("parked"))
	}
}

const syncprov = "overlay syncprov\nsyncprov-sessionlog 1000\n"

// TestLDAPBothWays: a write on any side is one history entry, and comes back to nobody.
func TestLDAPBothWays(t *testing.T) {
	d := newDirectoryPlant(t, syncprov, entryMapping, "create_parents = true")
	d.start()
	d.stands(1)
	box := watchTopic(t, d.mqttAddr(), "sensors/#")
	// HTTP to the directory.
	d.put("/v1/berlin/oven-1", `{"value":21.5}`)
	d.has("cn=oven-1,ou=berlin,dc=plant", "cn: oven-1|description: 21.5|objectClass: device", "cn", "description", "objectClass")
	d.has("ou=berlin,dc=plant", "ou: berlin", "ou")
	// MQTT to the directory.
	must(t, peer(t, "mosquitto_pub", "mosquitto-clients"), "-h", "127.0.0.1", "-p", fmt.Sprint(d.mqtt), "-q", "1", "-t", "sensors/berlin/oven-1", "-m", `{"unit":"C"}`)
	d.has("cn=oven-1,ou=berlin,dc=plant", "description: 21.5|serialNumber: C", "serialNumber", "description")
	// The directory to everybody; what nobody maps stays.
	d.dir.ldif("dn: cn=oven-1,ou=berlin,dc=plant\nchangetype: modify\nreplace: description\ndescription: 30\n-\nadd: owner\nowner: cn=admin,dc=plant\n")
	box.until(t, "the change", func(m message) bool {
		return m.topic == "sensors/berlin/oven-1" && strings.Contains(m.payload, `"value":30`)
	})
	d.becomes("site/berlin/oven-1", `{"unit":"C","value":30}`)
	d.put("/v1/berlin/oven-1", `{"value":31,"unit":"C"}`)
	d.has("cn=oven-1,ou=berlin,dc=plant", "description: 31|owner: cn=admin,dc=plant|serialNumber: C", "serialNumber", "owner", "description")
	d.wantHistory("site/berlin/oven-1", 4)
	by := d.history("site/berlin/oven-1")[2].Cause
	if by.Principal != "ldap/hq:"+slapdAdmin && by.Principal != slapdAdmin {
		t.Errorf("who: got %+v", by)
	}
	// A field that is cleared, a set that grows and shrinks.
	d.put("/v1/berlin/oven-1", `{"value":31,"tags":["a","b"]}`)
	d.has("cn=oven-1,ou=berlin,dc=plant", "l: a|l: b", "serialNumber", "l")
	d.dir.ldif("dn: cn=oven-1,ou=berlin,dc=plant\nchangetype: modify\nadd: l\nl: c\n-\ndelete: l\nl: a\n")
	eventually(t, "the set", func() bool { return strings.Contains(d.read("site/berlin/oven-1"), `["b","c"]`) })
	// Renamed, moved with its parent, deleted.
	d.dir.ldif("dn: cn=oven-1,ou=berlin,dc=plant\nchangetype: modrdn\nnewrdn: cn=oven-9\ndeleteoldrdn: 1\n")
	d.becomes("site/berlin/oven-1", "")
	eventually(t, "the new name", func() bool { return strings.Contains(d.read("site/berlin/oven-9"), `"value":31`) })
	if h := d.history("site/berlin/oven-9"); h[len(h)-1].Cause.RenamedFrom != "site/berlin/oven-1" {
		t.Errorf("the new name came by %+v, want a rename", h[len(h)-1].Cause)
	}
	d.dir.ldif("dn: ou=berlin,dc=plant\nchangetype: modrdn\nnewrdn: ou=bonn\ndeleteoldrdn: 1\n")
	d.becomes("site/berlin/oven-9", "")
	eventually(t, "the new place", func() bool { return strings.Contains(d.read("site/bonn/oven-9"), `"value":31`) })
	d.dir.ldif("dn: cn=oven-9,ou=bonn,dc=plant\nchangetype: delete\n")
	d.becomes("site/bonn/oven-9", "")
	d.put("/v1/bonn/oven-2", `{"value":1}`)
	d.has("cn=oven-2,ou=bonn,dc=plant", "description: 1", "description")
	request(t, d.client, "DELETE", d.httpURL()+"/v1/bonn/oven-2", "")
	d.has("cn=oven-2,ou=bonn,dc=plant", "gone")
	d.wantHistory("site/bonn/oven-2", 2)
	d.wantHistory("site/berlin/oven-1", 7)
	d.wantHistory("site/bonn/oven-9", 2)
}

// TestLDAPKill: the gateway killed again and again while entries change on both sides; then registers are entries.
func TestLDAPKill(t *testing.T) {
	d := newDirectoryPlant(t, syncprov, entryMapping, "create_parents = true")
	d.dir.unit("load")
	for i := range 40 {
		d.dir.device("load", fmt.Sprintf("r%d", i), "0")
	}
	kills := killUnderLoad(t, d.spookgw, d.stands, func(ctx context.Context, i int) *exec.Cmd {
		i++
		var b strings.Builder
		for k := range 10 {
			fmt.Fprintf(&b, "dn: cn=r%d,ou=load,dc=plant\nchangetype: modify\nreplace: description\ndescription: %d\n\n", (i+k)%40, i)
		}
		fmt.Fprintf(&b, "dn: cn=t%d,ou=load,dc=plant\nchangetype: add\nobjectClass: device\ndescription: %d\n\n", i, i)
		if i > 20 {
			fmt.Fprintf(&b, "dn: cn=t%d,ou=load,dc=plant\nchangetype: delete\n\n", i-20)
		}
		cmd := exec.CommandContext(ctx, "ldapmodify", "-x", "-H", d.dir.uri(), "-D", slapdAdmin, "-w", "secret")
		cmd.Stdin = strings.NewReader(b.String())
		return cmd
	})
	d.equal()
	for _, register := range []string{"site/load/r7", "site/load/r30"} {
		onlyGrows(t, register, d.history(register))
	}
	t.Logf("%d registers, %d kills", len(d.registers("site/")), kills)
}

// TestLDAPServerFails: the server stopped, killed, and changed while the gateway was away.
func TestLDAPServerFails(t *testing.T) {
	d := newDirectoryPlant(t, "overlay syncprov\n", entryMapping, "create_parents = true")
	d.dir.unit("s")
	for i := range 20 {
		d.dir.device("s", fmt.Sprintf("n%d", i), "1")
	}
	d.start()
	d.stands(1)
	d.equal()
	ups := 1
	for i, step := range []struct {
		name string
		do   func()
	}{
		{"stopped", func() { d.dir.process.stop(t); d.dir.up() }},
		{"killed", func() { d.dir.process.kill(); d.dir.up() }},
		{"changed while the gateway was away", func() {
			d.spookgw.stop(t)
			d.dir.set("s", "n5", "description", "1000")
			d.dir.ldif("dn: cn=n3,ou=s,dc=plant\nchangetype: delete\n")
			d.dir.device("s", "new", "1")
			d.start()
			ups = 0
		}},
		{"restored from a backup", func() { // the cookie names what the server has never heard of
			d.dir.process.stop(t)
			backup := d.dir.dump()
			d.dir.up()
			ups++
			d.stands(ups)
			d.dir.set("s", "n7", "description", "77")
			d.dir.ldif("dn: cn=n8,ou=s,dc=plant\nchangetype: delete\n")
			d.dir.device("s", "n99", "1")
			d.equal()
			d.dir.process.stop(t)
			d.dir.restore(backup)
			d.dir.up()
		}},
	} {
		step.do()
		d.put("/v1/s/web", `{"value":`+fmt.Sprint(ups)+`}`)
		ups++
		d.stands(ups)
		d.dir.set("s", "n1", "description", fmt.Sprint(100+ups))
		d.dir.ldif(fmt.Sprintf("dn: cn=n%d,ou=s,dc=plant\nchangetype: delete\n", 10+i))
		d.has("cn=web,ou=s,dc=plant", fmt.Sprintf("description: %d", ups-1), "description")
		d.equal()
		if t.Failed() {
			t.Fatalf("after: %s", step.name)
		}
	}
	if n := d.metrics()[`spookgw_wrapper_events_total{event="cookie_lost",wrapper="hq"}`]; n != 1 {
		t.Errorf("cookie_lost: got %v, want 1", n)
	}
}

// TestLDAPConverge: few values are written again and again on both sides, entries made and deleted, so that what one side writes is
// often what the other has just written, or is about to. In the end registers are entries.
func TestLDAPConverge(t *testing.T) {
	for _, way := range []struct{ name, database, settings string }{
		{"syncrepl", syncprov, "create_parents = true"},
		{"poll", "", "create_parents = true\n  poll_ms = 100\n  max_lost = 100"},
	} {
		t.Run(way.name, func(t *testing.T) { convergeLDAP(t, way.database, way.settings) })
	}
}

func convergeLDAP(t *testing.T, database, settings string) {
	d := newDirectoryPlant(t, database, entryMapping, settings)
	d.dir.unit("c")
	d.program = plainProgram(t)
	d.start()
	d.stands(1)
	seed := rand.Uint64()
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("SEED=%d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	var b strings.Builder
	for range 600 {
		dn := fmt.Sprintf("cn=x%d,ou=c,dc=plant", dice.IntN(4))
		switch dice.IntN(12) {
		case 0:
			fmt.Fprintf(&b, "dn: %s\nchangetype: delete\n\n", dn)
		case 1, 2:
			fmt.Fprintf(&b, "dn: %s\nchangetype: add\nobjectClass: device\ndescription: %d\n\n", dn, dice.IntN(3))
		case 3:
			fmt.Fprintf(&b, "dn: %s\nchangetype: modify\nreplace: serialNumber\nserialNumber: u%d\n\n", dn, dice.IntN(3))
		default:
			fmt.Fprintf(&b, "dn: %s\nchangetype: modify\nreplace: description\ndescription: %d\n\n", dn, dice.IntN(3))
		}
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		cmd := exec.CommandContext(t.Context(), "ldapmodify", "-c", "-x", "-H", d.dir.uri(), "-D", slapdAdmin, "-w", "secret")
		cmd.Stdin = strings.NewReader(b.String())
		_ = cmd.Run() // what is not there can't be changed
	}()
	for range 400 {
		path := fmt.Sprintf("%s/v1/c/x%d", d.httpURL(), dice.IntN(4))
		switch dice.IntN(12) {
		case 0:
			request(t, d.client, "DELETE", path, "")
		case 1:
			request(t, d.client, "PUT", path, fmt.Sprintf(`{"value":%d,"unit":"u%d"}`, dice.IntN(3), dice.IntN(3)))
		default:
			request(t, d.client, "PATCH", path, fmt.Sprintf(`{"value":%d}`, dice.IntN(3)), "Content-Type", "application/merge-patch+json")
		}
	}
	if !arrives(over) {
		t.Fatal("ldapmodify has not ended")
	}
	d.equal()
	// Nothing of all that is taken for what comes later.
	for v := range 3 {
		for register := range d.registers("site/c/") {
			d.dir.set("c", strings.TrimPrefix(register, "site/c/"), "description", fmt.Sprint(v))
		}
		d.equal()
	}
	if out := d.cli("parked"); strings.Contains(out, "hq") {
		t.Errorf("parked: %s", out)
	}
}
