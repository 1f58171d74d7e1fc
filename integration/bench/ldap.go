package main

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

const (
	ldapEntries  = 10_000
	ldapClients  = 16
	ldapAdmin    = "cn=admin,dc=bench"
	ldapPassword = "secret"
)

// ldapRelay compares ways to reach one slapd: straight, through haproxy in TCP mode, through a slapd with back-ldap, and through the
// gateway, whose mapping is of another subtree (pass), or of the entries (mapped).
func ldapRelay(l *lab, o options) (*table, error) {
	t := &table{title: "LDAP relay", columns: []string{"direct", "haproxy", "back-ldap", "pass", "mapped", "async"}}
	server, err := l.slapd()
	if err != nil {
		return t, err
	}
	proxy, err := l.haproxy("tcp", server.addr)
	if err != nil {
		return t, err
	}
	backend, err := l.backLDAP(server.addr)
	if err != nil {
		return t, err
	}
	account := []string{`base = "dc=bench"`, fmt.Sprintf("user = %q", ldapAdmin), fmt.Sprintf("password = %q", ldapPassword)}
	bind := func(under string) string {
		return "register \"one/{uid}\" {\n  fields = { phone = string }\n  bind \"ldap\" \"uid={uid},ou=" + under + "\" {\n    map = { phone = payload.telephoneNumber }\n  }\n}\n"
	}
	all := []contender{{"direct", nil, server.addr}, {"haproxy", proxy, proxy.addr}, {"back-ldap", backend, backend.addr}}
	for _, g := range []struct {
		name, under string
		more        []string
	}{{"pass", "others", nil}, {"mapped", "people", nil}, {"async", "people", []string{`capture = "async"`}}} {
		p, err := l.spookgwWith("ldap", "ldap://"+server.addr, bind(g.under), append(account, g.more...)...)
		if err != nil {
			return t, err
		}
		if err := l.quiet(p, "feed stands"); err != nil {
			return t, err
		}
		all = append(all, contender{g.name, p, p.addr})
	}
	for _, load := range []struct {
		name string
		ask  func(n int) ldapwire.Body
	}{
		{"search by DN", byDN},
		{"search, indexed", byUID},
		{"modify", func(n int) ldapwire.Body {
			return &ldapwire.ModifyRequest{Object: ldapPerson(n), Changes: []ldapwire.Change{{Operation: ldapwire.ModifyReplace,
				Modification: ldapwire.PartialAttribute{Type: "telephoneNumber", Vals: [][]byte{fmt.Appendf(nil, "+49 %d", rand.Int32())}}}}}
		}},
	} {
		name := fmt.Sprintf("%s, %d clients", load.name, ldapClients)
		f, err := compare(o.rounds, all, func(c contender) (sample, error) {
			if strings.HasPrefix(load.name, "modify") && c.proc != nil && c.proc.name == "spookgw" {
				// What the others' turns wrote it hears as well, and has to be done with.
				if err := l.quiet(c.proc, "feed stands"); err != nil {
					return sample{}, err
				}
			}
			return ldapLoad(o, c, dialLDAP, load.ask)
		})
		if err != nil {
			return t, fmt.Errorf("%s: %w", name, err)
		}
		rate, cpu := f.rows(t, name, "/s")
		r := f.ratio("pass", "haproxy")
		rate.mark, rate.verdict = fmt.Sprintf("pass %.2f of haproxy, at least 0.9; %.2f of back-ldap", r, f.ratio("pass", "back-ldap")), atLeast(r, 0.9)
		if strings.HasPrefix(load.name, "search") {
			cpu.mark = fmt.Sprintf("pass %.1f, at most 40", f.micros("pass"))
			cpu.verdict, cpu.gates = atMost(f.micros("pass"), 40), true
		}
	}
	return t, nil
}

func ldapPerson(n int) string { return fmt.Sprintf("uid=u%d,ou=people,dc=bench", n) }

// ldapLoad has the clients ask one thing after another, each as soon as it has its answer.
func ldapLoad(o options, c contender, dial func(addr string) (*ldapClient, error), ask func(n int) ldapwire.Body) (sample, error) {
	clients := make([]*ldapClient, ldapClients)
	for i := range clients {
		k, err := dial(c.addr)
		if err != nil {
			return sample{}, err
		}
		defer k.conn.Close()
		clients[i] = k
	}
	var before time.Duration
	if c.proc != nil {
		before = c.proc.cpu()
	}
	began := time.Now()
	until := began.Add(o.length)
	done := make([]int, len(clients))
	errs := make([]error, len(clients))
	var wg sync.WaitGroup
	for i, k := range clients {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			for time.Now().Before(until) {
				if errs[i] = k.do(ask(rng.IntN(ldapEntries))); errs[i] != nil {
					return
				}
				done[i]++
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	n := 0
	for _, d := range done {
		n += d
	}
	s := sample{rate: float64(n) / took.Seconds()}
	if c.proc != nil && n > 0 {
		s.cpu = (c.proc.cpu() - before) / time.Duration(n)
	}
	return s, errors.Join(errs...)
}

// An ldapClient asks one thing at a time.
type ldapClient struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	id   int32
}

func dialLDAP(addr string) (*ldapClient, error) { return dialLDAPAs(addr, ldapAdmin, ldapPassword) }

// dialAnonymous is for what lets in anybody.
func dialAnonymous(addr string) (*ldapClient, error) { return dialLDAPAs(addr, "", "") }

func dialLDAPAs(addr, name, password string) (*ldapClient, error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	k := &ldapClient{conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}
	if err := k.do(&ldapwire.BindRequest{Version: 3, Name: name, Simple: []byte(password)}); err != nil {
		conn.Close()
		return nil, fmt.Errorf("bind: %w", err)
	}
	return k, nil
}

// do asks, and passes over the answer up to its result.
func (k *ldapClient) do(body ldapwire.Body) error {
	k.id = k.id%1_000_000 + 1
	k.out = (&ldapwire.Message{MessageID: k.id, Body: body}).Append(k.out[:0])
	if _, err := k.conn.Write(k.out); err != nil {
		return err
	}
	for {
		if _, err := k.in.Peek(1); err != nil {
			return err
		}
		head, err := k.in.Peek(min(k.in.Buffered(), 32))
		if err != nil {
			return err
		}
		f, ok, err := ldapwire.ReadFrame(head)
		if err != nil {
			return err
		}
		if !ok || f.Op.Result() && int64(k.in.Buffered()) < f.Size {
			if _, err := k.in.Peek(k.in.Buffered() + 1); err != nil {
				return err
			}
			continue
		}
		if f.Op.Result() {
			frame, err := k.in.Peek(int(f.Size))
			if err != nil {
				return err
			}
			code, err := f.ResultCodeOf(frame)
			if err == nil && code != ldapwire.Success {
				err = fmt.Errorf("%s: %s", body.Op(), code)
			}
			if err != nil {
				return err
			}
		}
		if _, err := k.in.Discard(int(f.Size)); err != nil {
			return err
		}
		if f.Op.Result() {
			return nil
		}
	}
}

// slapd is a directory whose disk is not what is measured, with people in it.
func (l *lab) slapd() (*process, error) {
	data := ""
	if shm, err := os.MkdirTemp("/dev/shm", "spookgw-bench-"); err == nil {
		l.tidy = append(l.tidy, shm)
		data = shm
	}
	p, err := l.slapdWith("slapd", `moduleload back_mdb
moduleload syncprov
database mdb
suffix dc=bench
rootdn `+ldapAdmin+`
rootpw `+ldapPassword+`
directory `+filepath.Join(data, "db")+`
maxsize 1073741824
dbnosync
sizelimit unlimited
index objectClass,uid,entryUUID,entryCSN eq
overlay syncprov
syncprov-sessionlog 10000
`, filepath.Join(data, "db"))
	if err != nil {
		return nil, err
	}
	k, err := dialLDAP(p.addr)
	if err != nil {
		return nil, err
	}
	defer k.conn.Close()
	add := func(dn string, pairs ...string) {
		q := &ldapwire.AddRequest{Entry: dn}
		for i := 0; i < len(pairs); i += 2 {
			q.Attributes = append(q.Attributes, ldapwire.PartialAttribute{Type: pairs[i], Vals: [][]byte{[]byte(pairs[i+1])}})
		}
		if err == nil {
			err = k.do(q)
		}
	}
	add("dc=bench", "objectClass", "domain", "dc", "bench")
	add("ou=people,dc=bench", "objectClass", "organizationalUnit", "ou", "people")
	add("ou=others,dc=bench", "objectClass", "organizationalUnit", "ou", "others")
	for n := range ldapEntries {
		add(ldapPerson(n), "objectClass", "inetOrgPerson", "uid", fmt.Sprintf("u%d", n), "cn", fmt.Sprintf("Person %d", n), "sn", "Person", "mail", fmt.Sprintf("u%d@bench.example", n), "telephoneNumber", "1")
	}
	return p, err
}

// backLDAP is a slapd that passes everything to another.
func (l *lab) backLDAP(upstream string) (*process, error) {
	return l.slapdWith("slapd with back-ldap", `moduleload back_ldap
database ldap
suffix dc=bench
uri ldap://`+upstream+`
rebind-as-user yes
`, "")
}

func (l *lab) slapdWith(name, config, data string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	dir, err := l.place("slapd", "slapd.conf", "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\ninclude /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\n"+config)
	if err != nil {
		return nil, err
	}
	if data != "" {
		if err := os.MkdirAll(data, 0o700); err != nil {
			return nil, err
		}
	}
	return l.keep(start(l.ctx, name, addr, dir, listens(addr), "slapd", "-f", filepath.Join(dir, "slapd.conf"), "-h", "ldap://"+addr, "-d", "0"))
}

// byDN asks for one entry by its name.
func byDN(n int) ldapwire.Body {
	return &ldapwire.SearchRequest{BaseObject: ldapPerson(n), Filter: &ldapwire.Filter{Kind: ldapwire.FilterPresent, Attribute: "objectClass"}}
}

// byUID asks for it by an attribute that is indexed.
func byUID(n int) ldapwire.Body {
	return &ldapwire.SearchRequest{BaseObject: "dc=bench", Scope: ldapwire.ScopeWholeSubtree,
		Filter: &ldapwire.Filter{Kind: ldapwire.FilterEqualityMatch, Attribute: "uid", Value: fmt.Appendf(nil, "u%d", n)}}
}
