package integration

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"
)

// A directoryFront is a gateway in front of a real directory, beside an HTTP and an MQTT server of its own.
type directoryFront struct {
	*spookgw
	dir    *slapdServer
	client *http.Client
	port   int // of the relay
}

// peersDatabase is a directory with all that clients may ask of one.
const peersDatabase = `limits dn.exact=cn=gateway,dc=plant size=unlimited time=unlimited
overlay syncprov
syncprov-sessionlog 1000
overlay sssvlv
overlay memberof
`

const peersGlobal = `moduleload sssvlv
moduleload memberof
include /etc/ldap/schema/nis.schema
password-hash {CLEARTEXT}
authz-policy to
authz-regexp uid=([^,]+),cn=[^,]+,cn=auth cn=$1,dc=plant
`

func newDirectoryFront(t testing.TB, more string) *directoryFront {
	t.Helper()
	return newDirectoryFrontOf(t, peersGlobal, peersDatabase, more)
}

func newDirectoryFrontOf(t testing.TB, global, database, more string) *directoryFront {
	t.Helper()
	d := &directoryFront{dir: newSlapdWith(t, global, database), client: keepAlive(t), port: freePort(t)}
	d.spookgw = newGateway(t, virtualWrappers+fmt.Sprintf(`
wrapper "ldap" "hq" {
  listen   = "127.0.0.1:%d"
  upstream = "ldap://127.0.0.1:%d"
  base     = "dc=plant"
  user     = %q
  password = env("PLANT_PASSWORD", "secret")
  %s
}
`, d.port, d.dir.port, slapdGateway, more), entryMapping)
	d.start()
	eventually(t, "the feed stands", func() bool {
		return d.metrics()[`spookgw_wrapper_events_total{event="feed_up",wrapper="hq"}`] >= 1
	})
	return d
}

func (d *directoryFront) uri() string { return fmt.Sprintf("ldap://127.0.0.1:%d", d.port) }

// What differs between two runs by itself.
var ldapVaries = []struct {
	re *regexp.Regexp
	as string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "SERVER"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`\d{14}(\.\d+)?Z(#[0-9a-f#]+)?`), "TIME"},
	{regexp.MustCompile(`(?i)(cookie|control: 1\.3\.6\.1\.4\.1\.4203\.1\.9\.1\.[23]|control: 1\.2\.840\.113556\.1\.4\.319|control: 1\.3\.6\.1\.1\.13\.\d)[^\n]*(\n [^\n]*)*`), "$1 …"},
	{regexp.MustCompile(`rid=\d+,csn=\S*|txnid=\S+`), "COOKIE"},
}

func sameEveryTime(s string) string {
	for _, v := range ldapVaries {
		s = v.re.ReplaceAllString(s, v.as)
	}
	return s
}

// alike runs a peer directly at the server and through the relay, and wants the same said.
func (d *directoryFront) alike(t *testing.T, name string, play func(uri string) string) {
	t.Helper()
	direct, relayed := sameEveryTime(play(d.dir.uri())), sameEveryTime(play(d.uri()))
	if direct == relayed {
		if len(direct) < 20 {
			t.Errorf("%s: it said no more than %q", name, direct)
		}
		return
	}
	a, b := strings.Split(direct, "\n"), strings.Split(relayed, "\n")
	for i := range max(len(a), len(b)) {
		var x, y string
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			t.Errorf("%s, line %d:\ndirectly %s\nrelayed  %s", name, i+1, x, y)
			return
		}
	}
}

const peersLDIF = `dn: ou=peers,dc=plant
objectClass: organizationalUnit
ou: peers

dn: cn=one,ou=peers,dc=plant
objectClass: device
cn: one
description: 1
serialNumber: C

dn: cn=two\, half,ou=peers,dc=plant
objectClass: device
cn: two, half
description: 2
l: a
l: b

dn: cn=ann,dc=plant
objectClass: inetOrgPerson
objectClass: posixAccount
cn: ann
sn: Lee
uid: ann
uidNumber: 7
gidNumber: 7
homeDirectory: /home/ann
userPassword: annsecret
mail: ann@plant.example

dn: cn=all,dc=plant
objectClass: groupOfNames
cn: all
member: cn=ann,dc=plant

dn: ou=away,dc=plant
objectClass: referral
objectClass: extensibleObject
ou: away
ref: ldap://elsewhere.example/ou=away,dc=plant
`

// TestLDAPToolsThroughRelay: OpenLDAP's own tools hear and say through the relay what they do directly.
func TestLDAPToolsThroughRelay(t *testing.T) {
	d := newDirectoryFront(t, "")
	admin := "-x -D cn=admin,dc=plant -w secret"
	steps := []toolStep{
		{"", "ldapwhoami -x"},
		{"", "ldapwhoami " + admin},
		{"", "ldapwhoami -x -D cn=admin,dc=plant -w wrong"},
		{peersLDIF, "ldapadd " + admin},
		{peersLDIF, "ldapadd -c " + admin},
		{"", "ldapsearch -x -LLL -s base -b '' namingContexts supportedLDAPVersion supportedExtension"},
		{"", "ldapsearch -x -LLL -s base -b cn=Subschema ldapSyntaxes"},
		{"", "ldapsearch -x -b dc=plant"},
		{"", "ldapsearch -x -b dc=plant -s one '(ou=*)' ou"},
		{"", "ldapsearch -x -b ou=peers,dc=plant -s children '(&(objectClass=device)(|(cn=o*)(description>=2)))'"},
		{"", "ldapsearch -x -b dc=plant '(cn:caseExactMatch:=ann)' mail"},
		{"", "ldapsearch -x -b dc=plant '(!(objectClass=device))' 1.1"},
		{"", "ldapsearch -x -A -b dc=plant '(uid=ann)'"},
		{"", "ldapsearch -x -b dc=plant '(uid=ann)' + '*'"},
		{"", "ldapsearch -x -b dc=plant -z 2 '(objectClass=*)' 1.1"},
		{"", "ldapsearch -x -b dc=plant -E pr=1/noprompt '(objectClass=device)' cn"},
		{"", "ldapsearch -x -b dc=plant -E sss=-cn '(objectClass=device)' cn"},
		{"", "ldapsearch -x -b dc=plant -E sss=cn -E vlv=0/1/1/0 '(objectClass=device)' cn"},
		{"", "ldapsearch -x -b dc=plant -M '(ou=away)' ref"},
		{"", "ldapsearch -x -b dc=plant -E '!sync=ro' '(objectClass=device)' cn"},
		{"", "ldapsearch -x -b dc=plant -e '!assert=(objectClass=device)' -s base"},
		{"", "ldapsearch -x -b dc=plant -e '!1.2.3.4' -s base"},
		{"", "ldapsearch -x -b cn=none,dc=plant"},
		{"", "ldapsearch -x -b 'not a name'"},
		{"", "ldapcompare " + admin + " cn=one,ou=peers,dc=plant serialNumber:C"},
		{"", "ldapcompare " + admin + " cn=one,ou=peers,dc=plant serialNumber:D"},
		{"dn: cn=one,ou=peers,dc=plant\nchangetype: modify\nreplace: description\ndescription: 10\n-\nadd: l\nl: x\nl: y\n-\ndelete: l\nl: x\n-\ndelete: serialNumber\n", "ldapmodify " + admin + " -e preread=description,l -e postread=description,l"},
		{"dn: cn=one,ou=peers,dc=plant\nchangetype: modify\ndelete: serialNumber\n", "ldapmodify " + admin},
		{"dn: cn=ann,dc=plant\nchangetype: modify\nincrement: uidNumber\nuidNumber: 3\n", "ldapmodify " + admin + " -e postread=uidNumber"},
		{"dn: cn=one,ou=peers,dc=plant\nchangetype: modify\nreplace: description\ndescription: 11\n", "ldapmodify " + admin + " -e '!assert=(description=99)'"},
		{"dn: cn=one,ou=peers,dc=plant\nchangetype: modify\nreplace: description\ndescription: 12\n", "ldapmodify " + admin + " -e '!authzid=dn:cn=ann,dc=plant'"},
		{"dn: cn=one,ou=peers,dc=plant\nchangetype: modify\nadd: nothing\nnothing: 12\n", "ldapmodify " + admin},
		{"", "ldapsearch -x -LLL -b dc=plant '(description=1*)' description mail"},
		{"", "ldapmodrdn " + admin + " -r cn=one,ou=peers,dc=plant cn=first"},
		{"", "ldapmodrdn " + admin + " -r -s dc=plant cn=first,ou=peers,dc=plant cn=moved"},
		{"", "ldapmodrdn " + admin + " -s ou=peers,dc=plant cn=moved,dc=plant cn=back"},
		{"", "ldapmodrdn " + admin + " -r ou=peers,dc=plant ou=friends"},
		{"", "ldapmodrdn " + admin + " -r cn=none,dc=plant cn=x"},
		{"", "ldapsearch -x -LLL -b ou=friends,dc=plant"},
		{"", "ldappasswd " + admin + " -s newsecret cn=ann,dc=plant"},
		{"", "ldapwhoami -x -D cn=ann,dc=plant -w newsecret"},
		{"", "ldappasswd -x -D cn=ann,dc=plant -w newsecret -a newsecret -s third"},
		{"", "ldapexop -x whoami"},
		{"", "ldapexop -x cancel 99"},
		{"", "ldapexop -x 1.2.3.4.5"},
		{"", "ldapwhoami -Q -Y PLAIN -U ann -w third"},
		{"", "ldapwhoami -Q -Y CRAM-MD5 -U ann -w third"},
		{"", "ldapwhoami -Q -Y DIGEST-MD5 -O maxssf=0 -U ann -w third"},
		{"", "ldapwhoami -Q -Y DIGEST-MD5 -O minssf=56 -U ann -w third"},
		{"", "ldapsearch -Q -Y DIGEST-MD5 -O minssf=56 -U ann -w third -LLL -b dc=plant '(uid=ann)' uid"},
		{"", "ldapwhoami -Q -Y DIGEST-MD5 -U ann -w wrong"},
		{"", "ldapwhoami -Q -Y EXTERNAL"},
		{"", "ldapwhoami -x -ZZ"},
		{"", "ldapdelete " + admin + " ou=friends,dc=plant"},
		{"", "ldapdelete " + admin + " -r ou=friends,dc=plant cn=ann,dc=plant cn=all,dc=plant"},
		{"", "ldapdelete " + admin + " -M ou=away,dc=plant"},
		{"", "ldapsearch -x -LLL -b dc=plant 1.1"},
	}
	d.alike(t, "OpenLDAP's tools", func(uri string) string { return playTools(uri, steps) })
}

// A toolStep is one command of OpenLDAP's tools, without the server's address, and what it reads.
type toolStep struct{ in, cmd string }

func playTools(uri string, steps []toolStep) string {
	var said strings.Builder
	for _, s := range steps {
		tool, rest, _ := strings.Cut(s.cmd, " ")
		cmd := exec.Command("sh", "-c", tool+" -H "+uri+" "+rest)
		cmd.Stdin = strings.NewReader(s.in)
		out, err := cmd.CombinedOutput()
		fmt.Fprintf(&said, "$ %s\n%s%v\n", s.cmd, out, err)
	}
	return said.String()
}

const pythonLDAP = `
import ldap, ldap.modlist, ldap.asyncsearch, sys
from ldap.controls import SimplePagedResultsControl
from ldap.controls.readentry import PostReadControl
from ldap.extop.dds import RefreshRequest
uri = sys.argv[1]
l = ldap.initialize(uri)
l.set_option(ldap.OPT_REFERRALS, 0)
print(l.simple_bind_s("cn=admin,dc=plant", "secret")[0], l.whoami_s())
l.add_s("ou=py,dc=plant", [("objectClass", [b"organizationalUnit"]), ("ou", [b"py"])])
ids = [l.add("cn=n%d,ou=py,dc=plant" % i, [("objectClass", [b"device"]), ("cn", [b"n%d" % i]), ("description", [b"%d" % i])]) for i in range(40)]
print([l.result(i)[0] for i in ids])
page, got = SimplePagedResultsControl(True, size=7, cookie=""), []
while True:
    i = l.search_ext("ou=py,dc=plant", ldap.SCOPE_ONELEVEL, "(objectClass=device)", ["cn"], serverctrls=[page])
    _, data, _, ctrls = l.result3(i)
    got += [dn for dn, _ in data]
    page.cookie = ctrls[0].cookie
    if not page.cookie: break
got.sort() # they were added side by side
print(len(got), got[0], got[-1])
i = l.modify_ext("cn=n1,ou=py,dc=plant", [(ldap.MOD_REPLACE, "description", [b"100"]), (ldap.MOD_ADD, "l", [b"a", "\u00fc".encode()])], serverctrls=[PostReadControl(True, ["description", "l"])])
_, _, _, ctrls = l.result3(i)
print(sorted(ctrls[0].entry.items()))
print(l.compare_s("cn=n1,ou=py,dc=plant", "description", b"100"), l.compare_s("cn=n1,ou=py,dc=plant", "description", b"101"))
l.rename_s("cn=n2,ou=py,dc=plant", "cn=m2", delold=1)
searches = [l.search("ou=py,dc=plant", ldap.SCOPE_SUBTREE, "(description=%d)" % i, ["cn"]) for i in range(30)]
print([len(l.result(i)[1]) for i in reversed(searches)])
a = l.search("ou=py,dc=plant", ldap.SCOPE_SUBTREE)
l.abandon(a)
try: l.cancel_s(l.search("ou=py,dc=plant", ldap.SCOPE_SUBTREE)); print("cancelled")
except (ldap.TOO_LATE, ldap.NO_SUCH_OPERATION): print("cancelled")
big = b"x" * 500000
l.modify_s("cn=n3,ou=py,dc=plant", [(ldap.MOD_REPLACE, "description", [big])])
print(len(l.search_s("cn=n3,ou=py,dc=plant", ldap.SCOPE_BASE)[0][1]["description"][0]))
for e in ("cn=none,ou=py,dc=plant", "bad"):
    try: l.modify_s(e, [(ldap.MOD_REPLACE, "description", [b"1"])])
    except ldap.LDAPError as x: print(type(x).__name__, x.args[0].get("desc"))
for dn, _ in l.search_s("ou=py,dc=plant", ldap.SCOPE_ONELEVEL): l.delete_s(dn)
l.delete_s("ou=py,dc=plant")
l.unbind_s()
`

func TestLDAPPythonThroughRelay(t *testing.T) {
	python := ""
	for _, path := range []string{"/usr/bin/python3", "python3"} { // Debian's packages are of its own
		if python == "" && exec.Command(path, "-c", "import ldap").Run() == nil {
			python = path
		}
	}
	if python == "" {
		t.Skip("python3-ldap not installed")
	}
	d := newDirectoryFront(t, "")
	d.alike(t, "python-ldap", func(uri string) string {
		out, err := exec.Command(python, "-c", pythonLDAP, uri).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", uri, err, out)
		}
		return string(out)
	})
}

const nodeLDAP = `
const { Client, Change, Attribute, AndFilter, EqualityFilter, SubstringFilter } = require('ldapts');
(async () => {
  const c = new Client({ url: process.argv[1] });
  await c.bind('cn=admin,dc=plant', 'secret');
  await c.add('ou=js,dc=plant', { objectClass: 'organizationalUnit', ou: 'js' });
  await Promise.all([...Array(30).keys()].map(i => c.add('cn=n' + i + ',ou=js,dc=plant', { objectClass: 'device', cn: 'n' + i, description: String(i), l: ['a', 'b'] })));
  const r = await c.search('ou=js,dc=plant', { scope: 'one', filter: new AndFilter({ filters: [new EqualityFilter({ attribute: 'objectClass', value: 'device' }), new SubstringFilter({ attribute: 'cn', initial: 'n1' })] }), attributes: ['cn', 'l'] });
  console.log(r.searchEntries.map(e => e.dn).sort(), r.searchEntries[0].l, r.searchReferences);
  for await (const page of c.searchPaginated('ou=js,dc=plant', { scope: 'one', paged: { pageSize: 7 } })) console.log(page.searchEntries.length);
  await c.modify('cn=n1,ou=js,dc=plant', [new Change({ operation: 'replace', modification: new Attribute({ type: 'description', values: ['ü', 'x'] }) }), new Change({ operation: 'delete', modification: new Attribute({ type: 'l', values: ['a'] }) })]);
  console.log((await c.search('cn=n1,ou=js,dc=plant', { scope: 'base' })).searchEntries);
  console.log(await c.compare('cn=n1,ou=js,dc=plant', 'l', 'b'), await c.compare('cn=n1,ou=js,dc=plant', 'l', 'a'));
  await c.modifyDN('cn=n2,ou=js,dc=plant', 'cn=m2');
  for (const dn of ['cn=none,ou=js,dc=plant', 'ou=js,dc=plant']) try { await c.del(dn) } catch (e) { console.log(e.name, e.code) }
  console.log((await c.exop('1.3.6.1.4.1.4203.1.11.3')).value);
  for (const e of (await c.search('ou=js,dc=plant', { scope: 'one' })).searchEntries) await c.del(e.dn);
  await c.del('ou=js,dc=plant');
  await c.unbind();
})().catch(e => { console.error(e); process.exit(1) });
`

func TestLDAPNodeThroughRelay(t *testing.T) {
	node := peer(t, "node", "nodejs")
	env := os.Environ()
	if root, err := exec.Command("npm", "root", "-g").Output(); err == nil && os.Getenv("NODE_PATH") == "" {
		env = append(env, "NODE_PATH="+strings.TrimSpace(string(root)))
	}
	if cmd := exec.Command(node, "-e", "require('ldapts')"); func() error { cmd.Env = env; return cmd.Run() }() != nil {
		t.Skip("ldapts not installed: npm install -g ldapts@7")
	}
	d := newDirectoryFront(t, "")
	d.alike(t, "ldapts", func(uri string) string {
		cmd := exec.Command(node, "-e", nodeLDAP, uri)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", uri, err, out)
		}
		return string(out)
	})
}

func TestLDAPGoThroughRelay(t *testing.T) {
	d := newDirectoryFront(t, "")
	d.alike(t, "go-ldap", func(uri string) string {
		var said strings.Builder
		say := func(args ...any) { fmt.Fprintln(&said, args...) }
		c, err := ldap.DialURL(uri)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		say(c.Bind("cn=admin,dc=plant", "wrong"))
		say(c.Bind("cn=admin,dc=plant", "secret"))
		who, err := c.WhoAmI(nil)
		say(who, err)
		add := ldap.NewAddRequest("ou=go,dc=plant", nil)
		add.Attribute("objectClass", []string{"organizationalUnit"})
		say(c.Add(add))
		for i := range 25 {
			add := ldap.NewAddRequest(fmt.Sprintf("cn=n%d,ou=go,dc=plant", i), nil)
			add.Attribute("objectClass", []string{"device"})
			add.Attribute("description", []string{fmt.Sprint(i)})
			say(c.Add(add))
		}
		q := ldap.NewSearchRequest("ou=go,dc=plant", ldap.ScopeSingleLevel, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=device)", []string{"cn", "description"}, nil)
		r, err := c.SearchWithPaging(q, 7)
		say(len(r.Entries), err)
		m := ldap.NewModifyRequest("cn=n1,ou=go,dc=plant", nil)
		m.Replace("description", []string{"x", "y"})
		m.Add("l", []string{"z"})
		mr, err := c.ModifyWithResult(m)
		say(mr != nil, err)
		m = ldap.NewModifyRequest("cn=n1,ou=go,dc=plant", nil)
		m.Increment("description", "1")
		say(c.Modify(m))
		say(c.Compare("cn=n1,ou=go,dc=plant", "description", "y"))
		say(c.ModifyDN(ldap.NewModifyDNRequest("cn=n1,ou=go,dc=plant", "cn=m1", true, "dc=plant")))
		say(c.Del(ldap.NewDelRequest("cn=none,dc=plant", nil)))
		q = ldap.NewSearchRequest("dc=plant", ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 3, 0, true, "(objectClass=*)", nil, nil)
		r, err = c.Search(q)
		say(len(r.Entries), err)
		say(c.Del(ldap.NewDelRequest("cn=m1,dc=plant", nil)))
		for i := range 25 {
			if i != 1 {
				say(c.Del(ldap.NewDelRequest(fmt.Sprintf("cn=n%d,ou=go,dc=plant", i), nil)))
			}
		}
		say(c.Del(ldap.NewDelRequest("ou=go,dc=plant", nil)))
		return said.String()
	})
}

// TestLDAPRelayCaptures: when a tool has its success the register has the write, with who made it, whatever kind of write it was.
func TestLDAPRelayCaptures(t *testing.T) {
	d := newDirectoryFront(t, "create_parents = true")
	d.dir.unit("berlin")
	box := watchTopic(t, d.mqttAddr(), "sensors/#")
	admin := []string{"-x", "-H", d.uri(), "-D", slapdAdmin, "-w", "secret"}
	does := func(in, tool string, args ...string) {
		t.Helper()
		if _, said, code := run(t, in, tool, append(slices.Clone(admin), args...)...); code != 0 {
			t.Fatalf("%s: %s", tool, said)
		}
	}
	is := func(register, want string) {
		t.Helper()
		if got := d.read(register); got != want {
			t.Errorf("%s: got %s, want %s: the tool has its success", register, got, want)
		}
	}
	does("dn: cn=oven-1,ou=berlin,dc=plant\nobjectClass: device\ndescription: 1\nl: a\n", "ldapadd")
	is("site/berlin/oven-1", `{"tags":["a"],"value":1}`)
	does("dn: cn=oven-1,ou=berlin,dc=plant\nchangetype: modify\nreplace: description\ndescription: 2\n-\nadd: l\nl: b\nl: c\n-\ndelete: l\nl: a\n", "ldapmodify")
	is("site/berlin/oven-1", `{"tags":["b","c"],"value":2}`)
	box.until(t, "the change", func(m message) bool {
		return m.topic == "sensors/berlin/oven-1" && strings.Contains(m.payload, `"value":2`)
	})
	if by := d.history("site/berlin/oven-1")[0].Cause; by.Principal != "ldap/hq:"+slapdAdmin || !by.Verified || by.Peer == "" {
		t.Errorf("who: got %+v", by)
	}
	does("", "ldapmodrdn", "-r", "cn=oven-1,ou=berlin,dc=plant", "cn=oven-2")
	is("site/berlin/oven-2", `{"tags":["b","c"],"value":2}`)
	is("site/berlin/oven-1", "")
	does("", "ldapmodrdn", "-r", "ou=berlin,dc=plant", "ou=bonn")
	is("site/bonn/oven-2", `{"tags":["b","c"],"value":2}`)
	d.put("/v1/bonn/oven-2", `{"value":3}`)
	eventually(t, "the entry", func() bool {
		out, _, _ := run(t, "", "ldapsearch", append(slices.Clone(admin), "-LLL", "-b", "cn=oven-2,ou=bonn,dc=plant", "description", "l")...)
		return strings.Contains(out, "description: 3") && !strings.Contains(out, "l: b")
	})
	does("", "ldapdelete", "cn=oven-2,ou=bonn,dc=plant")
	is("site/bonn/oven-2", "")
	if n := d.metrics()[`spookgw_wrapper_events_total{event="capture_late",wrapper="hq"}`]; n != 0 {
		t.Errorf("%v results passed before the registers had the write", n)
	}
}

// TestLDAPRelayKill: the gateway is killed again and again while clients write through it; then registers are entries, and what a client had
// its success for is there.
func TestLDAPRelayKill(t *testing.T) {
	d := newDirectoryFront(t, "")
	d.dir.unit("berlin")
	const writers, kills = 4, 5
	for i := range writers {
		d.dir.device("berlin", fmt.Sprintf("oven-%d", i), "0")
	}
	stop := make(chan struct{})
	var acked [writers]atomic.Int64
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			var c *ldap.Conn
			for n := int64(1); ; n++ {
				select {
				case <-stop:
					if c != nil {
						c.Close()
					}
					return
				default:
				}
				if c == nil {
					var err error
					if c, err = ldap.DialURL(d.uri()); err == nil {
						c.SetTimeout(10 * time.Second)
						err = c.Bind(slapdAdmin, "secret")
					}
					if err != nil {
						if c != nil {
							c.Close()
						}
						c = nil
						time.Sleep(20 * time.Millisecond) // it is being started again
						continue
					}
				}
				q := ldap.NewModifyRequest(fmt.Sprintf("cn=oven-%d,ou=berlin,dc=plant", i), nil)
				q.Replace("description", []string{fmt.Sprint(n)})
				if c.Modify(q) == nil {
					acked[i].Store(n)
					continue
				}
				c.Close()
				c = nil
			}
		})
	}
	before := int64(-1)
	for range kills {
		eventually(t, "writes", func() bool { // so that each life of it has some
			now := acked[0].Load() + acked[1].Load()
			return now > before+20
		})
		before = acked[0].Load() + acked[1].Load()
		d.kill()
		d.start()
	}
	eventually(t, "writes", func() bool { return acked[0].Load()+acked[1].Load() > before })
	close(stop)
	all.Wait()
	p := &directoryPlant{spookgw: d.spookgw, dir: d.dir, client: d.client}
	p.equal()
	for i := range writers {
		var at float64
		if _, err := fmt.Sscanf(d.read(fmt.Sprintf("site/berlin/oven-%d", i)), `{"value":%f`, &at); err != nil || int64(at) < acked[i].Load() {
			t.Errorf("oven-%d: the register has %v (%v), a client had success for %d", i, at, err, acked[i].Load())
		}
	}
}

func (d *directoryFront) put(path, body string) {
	d.t.Helper()
	if status, _, text := request(d.t, d.client, "PUT", d.httpURL()+path, body); status >= 300 {
		d.t.Fatalf("PUT %s: %d %s", path, status, text)
	}
}

// TestLDAPRelayTLS: StartTLS and ldaps end at the gateway, on one listener.
func TestLDAPRelayTLS(t *testing.T) {
	certPEM, keyPEM := localhost(t)
	cert, key := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	writeFile(t, cert, certPEM)
	writeFile(t, key, keyPEM)
	d := newDirectoryFront(t, fmt.Sprintf("tls {\n    cert = %q\n    key  = %q\n  }", cert, key))
	t.Setenv("LDAPTLS_CACERT", cert)
	t.Setenv("LDAPTLS_REQCERT", "allow")
	search := func(uri string, more ...string) string {
		out, err := exec.Command("ldapsearch", append([]string{"-H", uri, "-x", "-LLL", "-D", slapdAdmin, "-w", "secret", "-s", "base", "-b", "dc=plant", "dc"}, more...)...).CombinedOutput()
		return fmt.Sprint(string(out), err)
	}
	want := search(d.dir.uri())
	if got := search(d.uri(), "-ZZ"); got != want {
		t.Errorf("StartTLS: got %s, want %s", got, want)
	}
	if got := search("ldaps" + strings.TrimPrefix(d.uri(), "ldap")); got != want {
		t.Errorf("ldaps: got %s, want %s", got, want)
	}
	if got := search(d.uri()); !strings.Contains(got, "Confidentiality required") {
		t.Errorf("without TLS: got %s", got)
	}
}
