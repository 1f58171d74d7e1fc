package integration

import (
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// peopleMapping makes entries of a directory out of registers, whatever attributes they have.
const peopleMapping = `
register "person/{uid}" {
  bind "ldap" "uid={uid},ou=people" {}
  bind "http" "/people/{uid}" {}
}

register "group/{cn}" {
  bind "ldap" "cn={cn},ou=groups" {}
}

register "device/{site}/{cn}" {
  bind "ldap" "cn={cn},ou={site},ou=devices" {}
}
`

// A virtualDirectory is a gateway that is a directory itself.
type virtualDirectory struct {
	*spookgw
	port int
}

func newVirtualDirectory(t testing.TB, more, mapping string) *virtualDirectory {
	t.Helper()
	peer(t, "ldapsearch", "ldap-utils")
	port := freePort(t)
	v := &virtualDirectory{port: port, spookgw: newGateway(t, virtualWrappers+fmt.Sprintf(`
user "ann" {
  password = env("ANN_PASSWORD", "secret")
}

wrapper "ldap" "directory" {
  listen    = "127.0.0.1:%d"
  base      = "dc=plant"
  anonymous = "write"
  %s
}
`, port, more), mapping)}
	v.start()
	return v
}

func (v *virtualDirectory) uri() string { return fmt.Sprintf("ldap://127.0.0.1:%d", v.port) }

// newNISDirectory is a real directory for the same entries, with an attribute memberOf and sorting.
func newNISDirectory(t testing.TB) *slapdServer {
	t.Helper()
	s := &slapdServer{t: t, dir: t.TempDir(), port: freePort(t), bin: peer(t, "slapd", "slapd")}
	if err := os.Mkdir(filepath.Join(s.dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(s.dir, "slapd.conf"), fmt.Sprintf(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
database mdb
suffix dc=plant
rootdn %s
rootpw secret
directory %s/db
maxsize 268435456
sizelimit unlimited
dbnosync
index objectClass,uid,cn,uidNumber eq
overlay memberof
`, slapdAdmin, s.dir))
	s.up()
	return s
}

// directoryData is what both directories have: people, groups of three kinds, and devices two levels deep.
func directoryData(people int) string {
	var b strings.Builder
	jpeg := base64.StdEncoding.EncodeToString([]byte{0xff, 0xd8, 0xff, 0xe0, 0, 1, 2})
	for n := range people {
		fmt.Fprintf(&b, `dn: uid=u%04d,ou=people,dc=plant
objectClass: inetOrgPerson
objectClass: posixAccount
uid: u%04d
cn: Person %d
sn: Person
givenName: Given %d
mail: u%04d@plant.example
uidNumber: %d
gidNumber: %d
homeDirectory: /home/u%04d
loginShell: /bin/%s
telephoneNumber: +49 30 555-%04d
`, n, n, n, n%7, n, 10000+n, 100+n%5, n, []string{"bash", "sh", "zsh"}[n%3], n)
		if n%2 == 0 {
			fmt.Fprintf(&b, "description: Even (number %d)\ntitle: Operator\n", n)
		}
		if n%3 == 0 {
			fmt.Fprintf(&b, "cn: Alias  of %d\ncn;lang-de: Mensch %d\nou: Halle %d\n", n, n, n%4)
		}
		if n%5 == 0 {
			fmt.Fprintf(&b, "mail: second%d@plant.example\nmanager: uid=u0000,ou=people,dc=plant\nemployeeNumber: %d\n", n, n)
		}
		if n%10 == 0 {
			fmt.Fprintf(&b, "sn:: %s\njpegPhoto:: %s\nl: Düsseldorf\nstreet: Straße %d\nhomePostalAddress: %d Main Street$Town\n", base64.StdEncoding.EncodeToString([]byte("Müller")), jpeg, n, n)
		}
		b.WriteByte('\n')
	}
	for g := range 5 {
		fmt.Fprintf(&b, "dn: cn=posix%d,ou=groups,dc=plant\nobjectClass: posixGroup\ncn: posix%d\ngidNumber: %d\n", g, g, 100+g)
		for n := g; n < people && n < 60; n += 5 {
			fmt.Fprintf(&b, "memberUid: u%04d\n", n)
		}
		fmt.Fprintf(&b, "\ndn: cn=team%d,ou=groups,dc=plant\nobjectClass: groupOfNames\ncn: team%d\n", g, g)
		for n := g; n < people && n < 60; n += 7 {
			fmt.Fprintf(&b, "member: uid=u%04d,ou=people,dc=plant\n", n)
		}
		b.WriteByte('\n')
	}
	for n := range 12 {
		fmt.Fprintf(&b, "dn: cn=oven-%d,ou=hall%d,ou=devices,dc=plant\nobjectClass: device\ncn: oven-%d\nserialNumber: SN-%d\nowner: uid=u%04d,ou=people,dc=plant\n\n", n, n%3, n, n*n, n%10)
	}
	return b.String()
}

// above is what is above these entries, which the gateway has by itself.
func above() string {
	var b strings.Builder
	b.WriteString("dn: dc=plant\nobjectClass: top\nobjectClass: domain\ndc: plant\n\n")
	for _, ou := range []string{"people", "groups", "devices", "hall0,ou=devices", "hall1,ou=devices", "hall2,ou=devices"} {
		name, _, _ := strings.Cut(ou, ",")
		fmt.Fprintf(&b, "dn: ou=%s,dc=plant\nobjectClass: top\nobjectClass: organizationalUnit\nou: %s\n\n", ou, name)
	}
	return b.String()
}

func ldapadd(t testing.TB, uri, ldif string, args ...string) {
	t.Helper()
	if _, errs, code := run(t, ldif, "ldapadd", append([]string{"-x", "-H", uri}, args...)...); code != 0 {
		t.Fatalf("ldapadd: exit %d: %s", code, errs)
	}
}

// found is what ldapsearch prints, by DN, with lines in order; and its exit status.
func found(t testing.TB, uri string, args ...string) (map[string][]string, int) {
	t.Helper()
	out, errs, code := run(t, "", "ldapsearch", append([]string{"-x", "-LLL", "-o", "ldif-wrap=no", "-H", uri}, args...)...)
	if code == 1 || code > 100 {
		t.Errorf("ldapsearch %q: exit %d: %s", args, code, errs)
	}
	entries := map[string][]string{}
	for block := range strings.SplitSeq(out, "\n\n") {
		dn := ""
		for line := range strings.Lines(block) {
			line = strings.TrimRight(line, "\n")
			switch rest, isDN := strings.CutPrefix(line, "dn: "); {
			case isDN:
				dn = rest
				entries[dn] = []string{}
			case line == "", strings.HasPrefix(line, "# "):
			default:
				entries[dn] = append(entries[dn], line)
			}
		}
		slices.Sort(entries[dn])
	}
	return entries, code
}

// TestLDAPVirtualLikeSlapd asks a real directory and the gateway the same of the same entries.
func TestLDAPVirtualLikeSlapd(t *testing.T) {
	real, ours := newNISDirectory(t), newVirtualDirectory(t, "", peopleMapping)
	data := directoryData(200)
	ldapadd(t, real.uri(), above()+data, "-D", slapdAdmin, "-w", "secret")
	ldapadd(t, ours.uri(), data)
	queries := [][]string{ // base, scope, filter, attributes
		{"dc=plant", "base", "(objectClass=*)"},
		{"dc=plant", "one", "(objectClass=*)"},
		{"dc=plant", "sub", "(objectClass=*)"},
		{"dc=plant", "children", "(objectClass=*)", "1.1"},
		{"ou=people,dc=plant", "one", "(objectClass=*)", "uid"},
		{"ou=devices,dc=plant", "sub", "(objectClass=*)"},
		{"ou=devices,dc=plant", "children", "(objectClass=device)"},
		{"ou=devices,dc=plant", "one", "(objectClass=device)"},
		{"OU=People, DC=Plant", "sub", "(uid=u0010)"},
		{"uid=u0010,ou=people,dc=plant", "base", "(objectClass=*)"},
		{"uid=u0010,ou=people,dc=plant", "base", "(uid=u0011)"},
		{"uid=nobody,ou=people,dc=plant", "base", "(objectClass=*)"},
		{"cn=oven-1,ou=hall1,ou=devices,dc=plant", "base", "(objectClass=*)", "*", "hasSubordinates"},
		{"ou=devices,dc=plant", "base", "(objectClass=*)", "hasSubordinates"},
		{"ou=people,dc=plant", "sub", "(uid=u0010)"},
		{"ou=people,dc=plant", "sub", "(UID=U0010)", "MAIL"},
		{"ou=people,dc=plant", "sub", "(userid=u0010)", "commonName"},
		{"ou=people,dc=plant", "sub", "(0.9.2342.19200300.100.1.1=u0010)", "2.5.4.3"},
		{"dc=plant", "sub", "(cn=person 7)", "cn"},
		{"dc=plant", "sub", "(cn=alias of 9)", "cn"},
		{"dc=plant", "sub", "(cn= alias   OF 9 )", "cn"},
		{"dc=plant", "sub", "(name=Given 3)", "dn"},
		{"dc=plant", "sub", "(cn=Person 1*)", "cn"},
		{"dc=plant", "sub", "(cn=*son 1*)", "cn"},
		{"dc=plant", "sub", "(cn=p*n*7)", "cn"},
		{"dc=plant", "sub", "(mail=*@PLANT.example)", "mail"},
		{"dc=plant", "sub", "(mail=second5@plant.example)", "mail"},
		{"dc=plant", "sub", "(uidNumber=10005)", "uidNumber"},
		{"dc=plant", "sub", "(uidNumber>=10190)", "uidNumber"},
		{"dc=plant", "sub", "(uidNumber<=10003)", "uidNumber"},
		{"dc=plant", "sub", "(&(uidNumber>=10010)(uidNumber<=10020))", "uidNumber"},
		{"dc=plant", "sub", "(uidNumber=1000*)", "uidNumber"},
		{"dc=plant", "sub", "(uidNumber=abc)", "dn"},
		{"dc=plant", "sub", "(!(uidNumber=abc))", "dn"},
		{"dc=plant", "sub", "(description=*)", "description"},
		{"dc=plant", "sub", "(!(description=*))", "dn"},
		{"dc=plant", "sub", `(description=even \28number 4\29)`, "description"},
		{"dc=plant", "sub", "(|(uid=u0001)(uid=u0002)(cn=team3))", "dn"},
		{"dc=plant", "sub", "(&(objectClass=posixAccount)(gidNumber=102)(!(loginShell=/bin/sh)))", "uid", "loginShell"},
		{"dc=plant", "sub", "(loginShell=/BIN/sh)", "dn"},
		{"dc=plant", "sub", "(telephoneNumber=+49305550007)", "telephoneNumber"},
		{"dc=plant", "sub", "(telephoneNumber=*555 001*)", "telephoneNumber"},
		{"dc=plant", "sub", "(member=uid=u0007,ou=people,dc=plant)", "cn"},
		{"dc=plant", "sub", "(member=UID=u0007, OU=people, DC=plant)", "cn"},
		{"dc=plant", "sub", "(manager=uid=u0000,ou=people,dc=plant)", "uid"},
		{"dc=plant", "sub", "(memberUid=u0007)", "cn"},
		{"dc=plant", "sub", "(memberUid=U0007)", "cn"},
		{"dc=plant", "sub", "(memberOf=cn=team1,ou=groups,dc=plant)", "uid", "memberOf"},
		{"dc=plant", "sub", "(&(objectClass=inetOrgPerson)(memberOf=cn=team2,ou=groups,dc=plant)(gidNumber=104))", "uid"},
		{"dc=plant", "sub", "(sn=müller)", "sn"},
		{"dc=plant", "sub", "(sn=MÜLLER)", "sn"},
		{"dc=plant", "sub", "(l=düsseldorf)", "l"},
		{"dc=plant", "sub", "(homePostalAddress=10 main street$TOWN)", "homePostalAddress"},
		{"dc=plant", "sub", "(cn;lang-de=mensch 9)", "cn;lang-de"},
		{"dc=plant", "sub", "(cn;lang-fr=mensch 9)", "dn"},
		{"dc=plant", "sub", "(cn=mensch 9)", "cn"},
		{"dc=plant", "sub", "(ou:dn:=hall1)", "dn"},
		{"dc=plant", "sub", "(ou:dn:caseExactMatch:=hall1)", "dn"},
		{"dc=plant", "sub", "(cn:caseExactMatch:=person 7)", "dn"},
		{"dc=plant", "sub", "(cn:caseExactMatch:=Person 7)", "dn"},
		{"dc=plant", "sub", "(gidNumber:1.2.840.113556.1.4.803:=4)", "dn"},
		{"dc=plant", "sub", "(gidNumber:1.2.840.113556.1.4.804:=3)", "dn"},
		{"dc=plant", "sub", "(nosuchattribute=x)", "dn"},
		{"dc=plant", "sub", "(!(nosuchattribute=x))", "dn"},
		{"dc=plant", "sub", "(|(nosuchattribute=x)(uid=u0003))", "dn"},
		{"dc=plant", "sub", "(objectClass=nosuchclass)", "dn"},
		{"dc=plant", "sub", "(!(objectClass=nosuchclass))", "dn"},
		{"dc=plant", "sub", "(objectClass=2.5.6.14)", "dn"},
		{"dc=plant", "sub", "(objectClass=person)", "dn"},
		{"dc=plant", "sub", "(objectClass=top)", "dn"},
		{"dc=plant", "sub", "(&(objectClass=organizationalPerson)(uid=u0009))", "objectClass"},
		{"dc=plant", "sub", "(&)", "dn"},
		{"dc=plant", "sub", "(|)", "dn"},
		{"dc=plant", "sub", "(entryDN=uid=u0004,ou=people,dc=plant)", "dn"},
		{"dc=plant", "sub", "(hasSubordinates=TRUE)", "dn"},
		{"dc=plant", "sub", "(structuralObjectClass=device)", "structuralObjectClass"},
		{"dc=plant", "sub", "(jpegPhoto=*)", "jpegPhoto"},
		{"dc=plant", "sub", "(cn=oven-4)", "@device"},
		{"dc=plant", "sub", "(seeAlso=*)", "dn"},
		{"dc=elsewhere", "sub", "(objectClass=*)"},
		{"not a name", "sub", "(objectClass=*)"},
	}
	if len(queries) < 40 {
		t.Fatalf("%d queries", len(queries))
	}
	some := 0
	for _, q := range queries {
		for _, more := range [][]string{nil, {"-A"}} {
			args := append(slices.Clone(more), "-b", q[0], "-s", q[1], q[2])
			args = append(args, q[3:]...)
			want, wantCode := found(t, real.uri(), args...)
			got, code := found(t, ours.uri(), args...)
			if code != wantCode {
				t.Errorf("%q: exit %d, slapd's is %d", args, code, wantCode)
			}
			if d := difference(got, want); d != "" {
				t.Errorf("%q: unlike slapd:\n%s", args, d)
			}
			some += len(want)
		}
	}
	if some < 1000 {
		t.Errorf("%d entries in all answers: the queries find nothing", some)
	}

	// Result codes.
	for _, c := range []struct {
		name string
		args []string
		ldif string
	}{
		{"size limit", []string{"ldapsearch", "-z", "3", "-b", "dc=plant"}, ""},
		{"no size limit", []string{"ldapsearch", "-z", "0", "-b", "dc=plant"}, ""},
		{"unknown critical control", []string{"ldapsearch", "-E", "!1.2.3.4.5", "-b", "dc=plant"}, ""},
		{"unknown control", []string{"ldapsearch", "-E", "1.2.3.4.5", "-b", "dc=plant"}, ""},
		{"compare true", []string{"ldapcompare", "uid=u0001,ou=people,dc=plant", "sn:person"}, ""},
		{"compare a superclass", []string{"ldapcompare", "uid=u0001,ou=people,dc=plant", "objectClass:person"}, ""},
		{"compare false", []string{"ldapcompare", "uid=u0001,ou=people,dc=plant", "sn:other"}, ""},
		{"compare nothing", []string{"ldapcompare", "uid=u0001,ou=people,dc=plant", "title:x"}, ""},
		{"compare unknown", []string{"ldapcompare", "uid=u0001,ou=people,dc=plant", "unknownattr:x"}, ""},
		{"compare nobody", []string{"ldapcompare", "uid=nobody,ou=people,dc=plant", "sn:x"}, ""},
		{"add twice", []string{"ldapmodify"}, "dn: uid=u0001,ou=people,dc=plant\nchangetype: add\nobjectClass: inetOrgPerson\nuid: u0001\ncn: x\nsn: x\n"},
		{"add without what is required", []string{"ldapmodify"}, "dn: uid=v1,ou=people,dc=plant\nchangetype: add\nobjectClass: inetOrgPerson\nuid: v1\ncn: x\n"},
		{"add what is not allowed", []string{"ldapmodify"}, "dn: cn=v1,ou=groups,dc=plant\nchangetype: add\nobjectClass: device\ncn: v1\ngidNumber: 4\n"},
		{"add what nobody knows", []string{"ldapmodify"}, "dn: cn=v1,ou=groups,dc=plant\nchangetype: add\nobjectClass: nosuchclass\ncn: v1\n"},
		{"add two single values", []string{"ldapmodify"}, "dn: uid=v1,ou=people,dc=plant\nchangetype: add\nobjectClass: inetOrgPerson\nuid: v1\ncn: x\nsn: x\ndisplayName: a\ndisplayName: b\n"},
		{"add a bad value", []string{"ldapmodify"}, "dn: uid=v1,ou=people,dc=plant\nchangetype: add\nobjectClass: inetOrgPerson\nobjectClass: posixAccount\nuid: v1\ncn: x\nsn: x\nuidNumber: a\ngidNumber: 1\nhomeDirectory: /\n"},
		{"add the same value twice", []string{"ldapmodify"}, "dn: uid=v1,ou=people,dc=plant\nchangetype: add\nobjectClass: inetOrgPerson\nuid: v1\ncn: x\ncn: X\nsn: x\n"},
		{"add what is operational", []string{"ldapmodify"}, "dn: uid=v1,ou=people,dc=plant\nchangetype: add\nobjectClass: inetOrgPerson\nuid: v1\ncn: x\nsn: x\nentryUUID: 597ae2f6-16a6-1027-98f4-d28b5365dc14\n"},
		{"add below nothing", []string{"ldapmodify"}, "dn: uid=v1,uid=nobody,ou=people,dc=plant\nchangetype: delete\n"},
		{"modify nobody", []string{"ldapmodify"}, "dn: uid=nobody,ou=people,dc=plant\nchangetype: modify\nadd: sn\nsn: x\n"},
		{"add a value that is there", []string{"ldapmodify"}, "dn: uid=u0001,ou=people,dc=plant\nchangetype: modify\nadd: sn\nsn: PERSON\n"},
		{"delete a value that is not there", []string{"ldapmodify"}, "dn: uid=u0001,ou=people,dc=plant\nchangetype: modify\ndelete: sn\nsn: x\n"},
		{"delete what is not there", []string{"ldapmodify"}, "dn: uid=u0001,ou=people,dc=plant\nchangetype: modify\ndelete: title\n"},
		{"delete what is required", []string{"ldapmodify"}, "dn: uid=u0001,ou=people,dc=plant\nchangetype: modify\ndelete: sn\n"},
		{"another structural class", []string{"ldapmodify"}, "dn: uid=u0001,ou=people,dc=plant\nchangetype: modify\nreplace: objectClass\nobjectClass: account\n"},
		{"increment", []string{"ldapmodify"}, "dn: uid=u0001,ou=people,dc=plant\nchangetype: modify\nincrement: uidNumber\nuidNumber: 5000\n"},
		{"increment text", []string{"ldapmodify"}, "dn: uid=u0002,ou=people,dc=plant\nchangetype: modify\nincrement: uidNumber\nuidNumber: one\n"},
		{"several changes", []string{"ldapmodify"}, "dn: uid=u0002,ou=people,dc=plant\nchangetype: modify\nadd: cn\ncn: Second\n-\ndelete: cn\ncn: person 2\n-\nreplace: title\ntitle: Boss\n-\nadd: description;lang-de\ndescription;lang-de: hallo\n"},
		{"all or nothing", []string{"ldapmodify"}, "dn: uid=u0003,ou=people,dc=plant\nchangetype: modify\nreplace: title\ntitle: Boss\n-\ndelete: description\n"},
		{"delete nobody", []string{"ldapdelete", "uid=nobody,ou=people,dc=plant"}, ""},
		{"rename", []string{"ldapmodrdn", "-r", "uid=u0004,ou=people,dc=plant", "uid=renamed"}, ""},
		{"rename, and keep the name", []string{"ldapmodrdn", "uid=u0006,ou=people,dc=plant", "uid=renamed6"}, ""},
		{"rename to what is there", []string{"ldapmodrdn", "-r", "uid=u0005,ou=people,dc=plant", "uid=u0001"}, ""},
		{"move", []string{"ldapmodrdn", "-r", "-s", "ou=hall2,ou=devices,dc=plant", "cn=oven-1,ou=hall1,ou=devices,dc=plant", "cn=oven-100"}, ""},
		{"move a place with all below it", []string{"ldapmodrdn", "-r", "ou=hall0,ou=devices,dc=plant", "ou=hall9"}, ""},
		{"delete what has others below it", []string{"ldapdelete", "ou=hall9,ou=devices,dc=plant"}, ""},
		{"delete", []string{"ldapdelete", "uid=u0007,ou=people,dc=plant"}, ""},
	} {
		with := func(uri string, more ...string) int {
			args := append([]string{"-x", "-H", uri}, append(more, c.args[1:]...)...)
			_, _, code := run(t, c.ldif, c.args[0], args...)
			return code
		}
		want, got := with(real.uri(), "-D", slapdAdmin, "-w", "secret"), with(ours.uri())
		if got != want {
			t.Errorf("%s: exit %d, slapd's is %d", c.name, got, want)
		}
	}
	want, _ := found(t, real.uri(), "-b", "dc=plant")
	got, _ := found(t, ours.uri(), "-b", "dc=plant")
	if d := difference(got, want); d != "" {
		t.Errorf("after these changes, unlike slapd:\n%s", d)
	}
	if n := ours.metrics()[`spookgw_wrapper_events_total{event="index_late",wrapper="directory"}`]; n != 0 {
		t.Errorf("%v writes were not found at once", n)
	}
}

// difference tells what two directories differ in; "" if in nothing.
func difference(got, want map[string][]string) string {
	var b strings.Builder
	for _, dn := range slices.Sorted(maps.Keys(want)) {
		g, there := got[dn]
		switch {
		case !there:
			fmt.Fprintf(&b, "missing: %s\n", dn)
		case !slices.Equal(g, want[dn]):
			fmt.Fprintf(&b, "%s:\n  got  %q\n  want %q\n", dn, g, want[dn])
		}
	}
	for _, dn := range slices.Sorted(maps.Keys(got)) {
		if _, there := want[dn]; !there {
			fmt.Fprintf(&b, "too many: %s\n", dn)
		}
	}
	if lines := strings.SplitAfter(b.String(), "\n"); len(lines) > 12 {
		return strings.Join(lines[:12], "") + fmt.Sprintf("and %d lines more\n", len(lines)-12)
	}
	return b.String()
}

// TestLDAPVirtualPaging: 10,000 entries, page by page, sorted, and what SSSD asks of them.
func TestLDAPVirtualPaging(t *testing.T) {
	v := newVirtualDirectory(t, "", peopleMapping)
	const people = 10_000
	data := directoryData(people)
	ldapadd(t, v.uri(), data)
	for _, more := range [][]string{nil, {"-E", "sss=-uidNumber"}} {
		entries, code := found(t, v.uri(), append(more, "-b", "ou=people,dc=plant", "-E", "pr=333/noprompt", "(objectClass=posixAccount)", "uid")...)
		if code != 0 || len(entries) != people {
			t.Errorf("%q: exit %d, %d entries, want %d", more, code, len(entries), people)
		}
	}
	for _, q := range []struct {
		base, filter string
		want         int
		attributes   []string
	}{
		{"dc=plant", "(&(uid=u0042)(objectClass=posixAccount)(&(uidNumber=*)(!(uidNumber=0))))", 1, []string{"objectClass", "uid", "userPassword", "uidNumber", "gidNumber", "gecos", "homeDirectory", "loginShell", "krbPrincipalName", "cn", "modifyTimestamp", "shadowLastChange"}},
		{"dc=plant", "(&(uidNumber=10042)(objectClass=posixAccount)(&(uidNumber=*)(!(uidNumber=0))))", 1, []string{"uid", "entryUSN"}},
		{"dc=plant", "(&(cn=posix2)(objectClass=posixGroup)(&(gidNumber=*)(!(gidNumber=0))))", 1, []string{"objectClass", "cn", "userPassword", "gidNumber", "memberUid", "modifyTimestamp"}},
		{"dc=plant", "(&(gidNumber=102)(objectClass=posixGroup)(cn=*)(&(gidNumber=*)(!(gidNumber=0))))", 1, []string{"cn"}},
		{"dc=plant", "(&(memberUid=u0007)(objectClass=posixGroup)(cn=*)(&(gidNumber=*)(!(gidNumber=0))))", 1, []string{"cn"}},
		{"dc=plant", "(&(member=uid=u0007,ou=people,dc=plant)(objectClass=groupOfNames))", 1, []string{"cn"}},
		{"dc=plant", "(&(objectClass=posixAccount)(modifyTimestamp>=20200101000000Z))", people, []string{"uid"}},
		{"dc=plant", "(&(objectClass=posixAccount)(modifyTimestamp>=20990101000000Z))", 0, []string{"uid"}},
	} {
		entries, code := found(t, v.uri(), append([]string{"-b", q.base, q.filter}, q.attributes...)...)
		if code != 0 || len(entries) != q.want {
			t.Errorf("%s: exit %d, %d entries, want %d", q.filter, code, len(entries), q.want)
		}
	}
	if n := v.metrics()[`spookgw_wrapper_events_total{event="searches_without_index",wrapper="directory"}`]; n > 6 {
		t.Errorf("%v searches looked at everything", n)
	}

	// An entry keeps its entryUUID when it is renamed, and over a restart.
	uuid := func(name string) string {
		entries, _ := found(t, v.uri(), "-b", name+",ou=people,dc=plant", "entryUUID")
		return strings.Join(entries[name+",ou=people,dc=plant"], "")
	}
	before, other := uuid("uid=u0042"), uuid("uid=u0043")
	if _, errs, code := run(t, "", "ldapmodrdn", "-x", "-H", v.uri(), "-r", "uid=u0042,ou=people,dc=plant", "uid=moved"); code != 0 {
		t.Fatalf("ldapmodrdn: exit %d: %s", code, errs)
	}
	if got := uuid("uid=moved"); got != before || before == "" || before == other {
		t.Errorf("renamed: %q, before %q", got, before)
	}
	v.stop(t)
	v.start()
	eventually(t, "the directory is there again", func() bool { return uuid("uid=u0043") == other })
	if got := uuid("uid=moved"); got != before {
		t.Errorf("after a restart: %q, before %q", got, before)
	}
}

// TestLDAPVirtualStrangers: wrong passwords are slow and counted, and what is no LDAP ends its own session.
func TestLDAPVirtualStrangers(t *testing.T) {
	v := newVirtualDirectory(t, "", peopleMapping)
	began := time.Now()
	for range 2 {
		if _, _, code := run(t, "", "ldapwhoami", "-x", "-H", v.uri(), "-D", "uid=ann,ou=people,dc=plant", "-w", "wrong"); code != 49 {
			t.Errorf("a wrong password: exit %d, want 49", code)
		}
	}
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("two wrong passwords took %v", took)
	}
	if n := v.metrics()[`spookgw_wrapper_events_total{event="refused_auth",wrapper="directory"}`]; n != 2 {
		t.Errorf("refused_auth: %v, want 2", n)
	}
	out, _, code := run(t, "", "ldapwhoami", "-x", "-H", v.uri(), "-D", "uid=ann,ou=people,dc=plant", "-w", "secret")
	if code != 0 || strings.TrimSpace(out) != "dn:uid=ann,ou=people,dc=plant" {
		t.Errorf("the right password: exit %d, %q", code, out)
	}

	for _, garbage := range []string{"GET / HTTP/1.1\r\n\r\n", "\x30\x80\x02\x01\x01", "\x30\x84\xff\xff\xff\xff", "\x30\x05\x02\x01\x01\x7f\x00", "\x30\x0c\x02\x01\x01\x63\x07\x04\x05aaaaa"} {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", v.port))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(garbage)); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		answer, err := io.ReadAll(c)
		if err != nil || !strings.Contains(string(answer), "1.3.6.1.4.1.1466.20036") {
			t.Errorf("%q: got %q, %v; want a notice of disconnection and the end", garbage, answer, err)
		}
		c.Close()
	}
	if _, code := found(t, v.uri(), "-b", "dc=plant"); code != 0 {
		t.Errorf("after the garbage: exit %d", code)
	}
}

// TestLDAPVirtualAccess: a search finds what its client may read and what `when` shows, also when that changes elsewhere.
func TestLDAPVirtualAccess(t *testing.T) {
	const mapping = `
register "person/{uid}" {
  fields = { name = string, state = string }
  bind "ldap" "uid={uid},ou=people" {
    map    = { name = payload.cn, state = payload.employeeType }
    when   = payload.employeeType != "left"
    create = { objectClass = ["inetOrgPerson"], sn = self.name }
  }
  bind "http" "/people/{uid}" {}
}
`
	peer(t, "ldapsearch", "ldap-utils")
	v := &virtualDirectory{port: freePort(t)}
	v.spookgw = newGateway(t, virtualWrappers+fmt.Sprintf(`
user "ann" {
  password = env("ANN_PASSWORD", "secret")
}
user "bob" {
  password = env("BOB_PASSWORD", "secret")
}
access "person/{uid}" {
  read  = ["ann", "http/*"]
  write = ["ann", "http/*"]
}
access "person/public" {
  read  = ["ann", "bob", "http/*"]
  write = ["ann", "http/*"]
}
wrapper "ldap" "directory" {
  listen    = "127.0.0.1:%d"
  base      = "dc=plant"
}
`, v.port), mapping)
	v.start()
	client := keepAlive(t)
	put := func(uid, body string) {
		t.Helper()
		if status, _, text := request(t, client, "PUT", v.httpURL()+"/people/"+uid, body); status >= 300 {
			t.Fatalf("PUT %s: %d %s", uid, status, text)
		}
	}
	put("public", `{"name":"Public","state":"new"}`)
	put("secret", `{"name":"Secret","state":"new"}`)
	as := func(who string, args ...string) []string {
		entries, _ := found(t, v.uri(), append([]string{"-D", who, "-w", "secret", "-b", "dc=plant"}, args...)...)
		return slices.Sorted(maps.Keys(entries))
	}
	people := "(objectClass=inetOrgPerson)"
	eventually(t, "ann finds both", func() bool { return len(as("ann", people, "1.1")) == 2 })
	if got := as("bob", people, "1.1"); !slices.Equal(got, []string{"uid=public,ou=people,dc=plant"}) {
		t.Errorf("bob finds %q", got)
	}
	if got := as("bob", "(cn=secret)", "1.1"); len(got) != 0 {
		t.Errorf("bob finds by the index %q", got)
	}
	if _, code := found(t, v.uri(), "-D", "bob", "-w", "secret", "-b", "uid=secret,ou=people,dc=plant"); code != 50 {
		t.Errorf("bob reads the entry: exit %d, want 50", code)
	}
	if _, code := found(t, v.uri(), "-b", "dc=plant"); code != 48 {
		t.Errorf("nobody in particular: exit %d, want 48", code)
	}
	ldif := "dn: uid=public,ou=people,dc=plant\nchangetype: modify\nreplace: cn\ncn: New\n"
	if _, _, code := run(t, ldif, "ldapmodify", "-x", "-H", v.uri(), "-D", "bob", "-w", "secret"); code != 50 {
		t.Errorf("bob writes: exit %d, want 50", code)
	}
	if _, errs, code := run(t, ldif, "ldapmodify", "-x", "-H", v.uri(), "-D", "ann", "-w", "secret"); code != 0 {
		t.Errorf("ann writes: exit %d, %s", code, errs)
	}
	if entries, _ := found(t, v.uri(), "-D", "ann", "-w", "secret", "-b", "dc=plant", "(cn=new)"); !slices.Equal(entries["uid=public,ou=people,dc=plant"], []string{"cn: New", "employeeType: new", "objectClass: inetOrgPerson", "sn: New", "uid: public"}) {
		t.Errorf("the entry: %q", entries)
	}

	// What `create` gives may be said, and not otherwise.
	for said, want := range map[string]int{"sn: Carl": 0, "sn: Other": 19, "objectClass: posixAccount": 65} {
		ldif := "dn: uid=carl,ou=people,dc=plant\nchangetype: add\nobjectClass: inetOrgPerson\nuid: carl\ncn: Carl\nemployeeType: new\n" + said + "\n"
		if want != 0 && said != "sn: Other" {
			ldif += "sn: Carl\n"
		}
		_, errs, code := run(t, ldif, "ldapmodify", "-x", "-H", v.uri(), "-D", "ann", "-w", "secret")
		if code != want {
			t.Errorf("%s: exit %d, want %d: %s", said, code, want, errs)
		}
		there := len(as("ann", "(uid=carl)", "1.1")) == 1
		if there != (want == 0) {
			t.Errorf("%s: the entry is there: %v", said, there)
		}
		if there {
			if _, errs, code := run(t, "", "ldapdelete", "-x", "-H", v.uri(), "-D", "ann", "-w", "secret", "uid=carl,ou=people,dc=plant"); code != 0 {
				t.Errorf("ldapdelete: exit %d: %s", code, errs)
			}
		}
	}

	// What passes the bind by is no success.
	left := "dn: uid=public,ou=people,dc=plant\nchangetype: modify\nreplace: employeeType\nemployeeType: left\n"
	if _, _, code := run(t, left, "ldapmodify", "-x", "-H", v.uri(), "-D", "ann", "-w", "secret"); code != 53 {
		t.Errorf("what `when` leaves out: exit %d, want 53", code)
	}

	// One that `when` hides goes, and comes again.
	put("public", `{"name":"Public","state":"left"}`)
	eventually(t, "the entry is hidden", func() bool { return len(as("ann", people, "1.1")) == 1 })
	put("public", `{"name":"Public","state":"active"}`)
	eventually(t, "the entry is there again", func() bool { return len(as("ann", "(employeeType=active)", "1.1")) == 1 })
}

// TestLDAPVirtualFeeds: another gateway is attached to the virtual directory as to any server with content synchronization, also
// over a restart of the directory.
func TestLDAPVirtualFeeds(t *testing.T) {
	const mapping = `
register "person/{uid}" {
  fields = { name = string, phone = string }
  bind "http" "/people/{uid}" {}
  bind "ldap" "uid={uid},ou=people" {
    map    = { name = payload.cn, phone = payload.telephoneNumber }
    create = { objectClass = ["inetOrgPerson"], sn = self.name }
  }
}
`
	v := newVirtualDirectory(t, "", mapping)
	other := newGateway(t, virtualWrappers+fmt.Sprintf(`
wrapper "ldap" "hq" {
  upstream = "ldap://127.0.0.1:%d"
  base     = "dc=plant"
  user     = "uid=ann,ou=people,dc=plant"
  password = env("ANN_PASSWORD", "secret")
}
`, v.port), mapping).start()
	client := keepAlive(t)
	put := func(at *spookgw, uid, body string) {
		t.Helper()
		if status, _, text := request(t, client, "PUT", at.httpURL()+"/people/"+uid, body); status >= 300 {
			t.Fatalf("PUT %s: %d %s", uid, status, text)
		}
	}
	drop := func(at *spookgw, uid string) {
		t.Helper()
		if status, _, text := request(t, client, "DELETE", at.httpURL()+"/people/"+uid, ""); status >= 300 {
			t.Fatalf("DELETE %s: %d %s", uid, status, text)
		}
	}
	comes := func(at *spookgw, uid, want string) {
		t.Helper()
		eventually(t, uid+" is "+want, func() bool {
			status, _, text := request(t, client, "GET", at.httpURL()+"/people/"+uid, "")
			return status == 200 && strings.TrimSpace(text) == want || status == 404 && want == ""
		})
	}
	put(v.spookgw, "ann", `{"name":"Ann","phone":"1"}`)
	comes(other, "ann", `{"name":"Ann","phone":"1"}`)
	put(other, "ann", `{"name":"Ann B","phone":"2"}`)
	comes(v.spookgw, "ann", `{"name":"Ann B","phone":"2"}`)
	put(other, "bob", `{"name":"Bob","phone":"3"}`)
	comes(v.spookgw, "bob", `{"name":"Bob","phone":"3"}`)
	put(v.spookgw, "carl", `{"name":"Carl","phone":"4"}`)
	comes(other, "carl", `{"name":"Carl","phone":"4"}`)
	drop(v.spookgw, "ann")
	comes(other, "ann", "")

	// While the other one is away; then with a cookie of a run that is over.
	other.stop(t)
	drop(v.spookgw, "carl")
	put(v.spookgw, "bob", `{"name":"Bob","phone":"5"}`)
	v.stop(t)
	v.start()
	other.start()
	comes(other, "bob", `{"name":"Bob","phone":"5"}`)
	comes(other, "carl", "")
	drop(other, "bob")
	comes(v.spookgw, "bob", "")
}

// TestLDAPVirtualNothingLost: clients that change one entry at once, of LDAP and of HTTP, lose nothing of each other.
func TestLDAPVirtualNothingLost(t *testing.T) {
	v := newVirtualDirectory(t, "", peopleMapping)
	ldapadd(t, v.uri(), "dn: uid=ann,ou=people,dc=plant\nobjectClass: inetOrgPerson\ncn: Ann\nsn: Lee\nemployeeNumber: 0\n")
	client := keepAlive(t)
	const clients, each = 4, 25
	var wg sync.WaitGroup
	for n := range clients {
		wg.Go(func() {
			var ldif strings.Builder
			for k := range each {
				fmt.Fprintf(&ldif, "dn: uid=ann,ou=people,dc=plant\nchangetype: modify\nadd: description\ndescription: value %d of %d\n-\nincrement: employeeNumber\nemployeeNumber: 1\n\n", k, n)
			}
			if _, errs, code := run(t, ldif.String(), "ldapmodify", "-x", "-H", v.uri()); code != 0 {
				t.Errorf("ldapmodify: exit %d: %s", code, errs)
			}
		})
	}
	wg.Go(func() {
		for n := range each {
			if status, _, text := request(t, client, "PATCH", v.httpURL()+"/people/ann", fmt.Sprintf(`{"title":"Title %d"}`, n)); status >= 300 {
				t.Errorf("PATCH: %d %s", status, text)
			}
		}
	})
	wg.Wait()
	entries, _ := found(t, v.uri(), "-b", "uid=ann,ou=people,dc=plant", "description", "employeeNumber", "title")
	lines := entries["uid=ann,ou=people,dc=plant"]
	values := 0
	for _, l := range lines {
		if strings.HasPrefix(l, "description: ") {
			values++
		}
	}
	if values != clients*each || !slices.Contains(lines, fmt.Sprintf("employeeNumber: %d", clients*each)) || !slices.Contains(lines, fmt.Sprintf("title: Title %d", each-1)) {
		t.Errorf("%d values, want %d: %q", values, clients*each, lines)
	}
}
