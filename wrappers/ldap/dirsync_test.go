package ldap

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// A domainController simulates Active Directory as far as DirSync goes (MS-ADTS, section 3.1.1.3.4.1.3): one naming context,
// objects with GUIDs and a counter of changes, tombstones, and searches that show what has changed since a cookie.
type domainController struct {
	t  testing.TB
	ln net.Listener

	mu      sync.Mutex
	usn     int64
	next    byte
	objects []*adObject
	expired bool // no cookie is known any more
	asked   int  // DirSync searches
}

type adObject struct {
	guid    string
	name    string
	attrs   []ldapwire.PartialAttribute
	usn     int64
	deleted bool
}

func startDomainController(t testing.TB) *domainController {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &domainController{t: t, ln: ln}
	c.add(suffixDN, "objectClass", "domain")
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer conn.Close(); c.serve(conn) })
			t.Cleanup(func() { conn.Close() })
		}
	})
	t.Cleanup(func() { ln.Close() })
	return c
}

func (c *domainController) add(name string, pairs ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	c.usn++
	c.objects = append(c.objects, &adObject{guid: strings.Repeat(string(rune(c.next)), 16), name: name, attrs: attrs(pairs...), usn: c.usn})
}

func (c *domainController) find(name string) *adObject {
	want, err := dn.Parse(name)
	if err != nil {
		return nil
	}
	for _, o := range c.objects {
		if d, err := dn.Parse(o.name); err == nil && !o.deleted && d.Equal(want) {
			return o
		}
	}
	return nil
}

func (c *domainController) touch(name string, f func(*adObject)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.find(name)
	if o == nil {
		c.t.Errorf("%s is not there", name)
		return
	}
	c.usn++
	o.usn = c.usn
	f(o)
}

func (c *domainController) set(name, attribute, v string) {
	c.touch(name, func(o *adObject) { o.put(attrs(attribute, v)[0]) })
}

func (o *adObject) put(a ldapwire.PartialAttribute) {
	o.attrs = slices.DeleteFunc(o.attrs, func(x ldapwire.PartialAttribute) bool { return strings.EqualFold(x.Type, a.Type) })
	if len(a.Vals) > 0 {
		o.attrs = append(o.attrs, a)
	}
}

func (c *domainController) del(name string) {
	c.touch(name, func(o *adObject) {
		o.deleted = true
		rdn, _, _ := strings.Cut(o.name, ",")
		o.name = rdn + `\0ADEL:` + hex.EncodeToString([]byte(o.guid)) + ",CN=Deleted Objects," + suffixDN
		o.attrs = nil
	})
}

func (c *domainController) serve(conn net.Conn) {
	in := bufio.NewReader(conn)
	for {
		m, err := readMessage(in, 1<<20)
		if err != nil {
			return
		}
		c.mu.Lock()
		var out []byte
		for _, a := range c.answer(m) {
			a.MessageID = m.MessageID
			out = a.Append(out)
		}
		c.mu.Unlock()
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

func result(op ldapwire.Op, code ldapwire.ResultCode) *ldapwire.Message {
	r := ldapwire.NewResponse(op)
	r.Result().ResultCode = code
	return &ldapwire.Message{Body: r}
}

func (c *domainController) answer(m *ldapwire.Message) []*ldapwire.Message {
	op := m.Body.Op()
	switch q := m.Body.(type) {
	case *ldapwire.SearchRequest:
		return c.search(m, q)
	case *ldapwire.AddRequest:
		if c.find(q.Entry) != nil {
			return []*ldapwire.Message{result(op, ldapwire.EntryAlreadyExists)}
		}
		c.next++
		c.usn++
		c.objects = append(c.objects, &adObject{guid: strings.Repeat(string(rune(c.next)), 16), name: q.Entry, attrs: q.Attributes, usn: c.usn})
	case *ldapwire.ModifyRequest:
		o := c.find(q.Object)
		if o == nil {
			return []*ldapwire.Message{result(op, ldapwire.NoSuchObject)}
		}
		for _, ch := range q.Changes {
			var now [][]byte
			for _, a := range o.attrs {
				if strings.EqualFold(a.Type, ch.Modification.Type) {
					now = a.Vals
				}
			}
			switch ch.Operation {
			case ldapwire.ModifyDelete:
				if len(missing(ch.Modification.Vals, now)) > 0 {
					return []*ldapwire.Message{result(op, ldapwire.NoSuchAttribute)}
				}
				now = missing(now, ch.Modification.Vals)
			case ldapwire.ModifyAdd:
				now = append(slices.Clone(now), ch.Modification.Vals...)
			default:
				now = ch.Modification.Vals
			}
			o.put(ldapwire.PartialAttribute{Type: ch.Modification.Type, Vals: now})
		}
		c.usn++
		o.usn = c.usn
	case *ldapwire.UnbindRequest, *ldapwire.AbandonRequest:
		return nil
	}
	return []*ldapwire.Message{result(op, ldapwire.Success)}
}

func (c *domainController) search(m *ldapwire.Message, q *ldapwire.SearchRequest) []*ldapwire.Message {
	op := q.Op()
	entry := func(o *adObject, list []ldapwire.PartialAttribute) *ldapwire.Message {
		return &ldapwire.Message{Body: &ldapwire.SearchResultEntry{ObjectName: o.name, Attributes: list}}
	}
	if q.BaseObject == "" && q.Scope == ldapwire.ScopeBaseObject {
		root := &adObject{}
		return []*ldapwire.Message{entry(root, attrs("namingContexts", suffixDN, "defaultNamingContext", suffixDN, "dsServiceName", "CN=NTDS Settings,CN=DC1",
			"supportedControl", ldapwire.OIDDirSync, "supportedControl", ldapwire.OIDPagedResults)), result(op, ldapwire.Success)}
	}
	if k := ldapwire.FindControl(m.Controls, ldapwire.OIDDirSync); k != nil {
		return c.dirSync(q, k)
	}
	whole := func(o *adObject) *ldapwire.Message {
		list := append(slices.Clone(o.attrs), attrs(objectGUID, o.guid, usnChanged, strconv.FormatInt(o.usn, 10))...)
		return entry(o, list)
	}
	var out []*ldapwire.Message
	if guid, ok := strings.CutPrefix(q.BaseObject, "<GUID="); ok {
		for _, o := range c.objects {
			if hex.EncodeToString([]byte(o.guid)) == strings.TrimSuffix(guid, ">") && !o.deleted {
				out = append(out, whole(o))
			}
		}
	} else if q.Scope == ldapwire.ScopeBaseObject {
		if o := c.find(q.BaseObject); o != nil {
			out = append(out, whole(o))
		}
	} else {
		for _, o := range c.objects {
			if !o.deleted {
				out = append(out, whole(o))
			}
		}
	}
	if out == nil {
		return []*ldapwire.Message{result(op, ldapwire.NoSuchObject)}
	}
	return append(out, result(op, ldapwire.Success))
}

// dirSync shows two objects at a time, the least recently changed first.
func (c *domainController) dirSync(q *ldapwire.SearchRequest, k *ldapwire.Control) []*ldapwire.Message {
	op := q.Op()
	d, err := ldapwire.DecodeDirSync(k.Value)
	switch {
	case err != nil || len(d.Cookie) != 0 && len(d.Cookie) != 8:
		return []*ldapwire.Message{result(op, ldapwire.ProtocolError)}
	case q.BaseObject != suffixDN:
		return []*ldapwire.Message{result(op, ldapwire.UnwillingToPerform)}
	case d.Flags&ldapwire.DirSyncObjectSecurity == 0:
		return []*ldapwire.Message{result(op, ldapwire.InsufficientAccessRights)}
	case c.expired && len(d.Cookie) > 0:
		return []*ldapwire.Message{result(op, ldapwire.UnwillingToPerform)}
	}
	c.asked++
	since := int64(0)
	if len(d.Cookie) == 8 {
		since = int64(binary.BigEndian.Uint64(d.Cookie))
	}
	changed := slices.DeleteFunc(slices.Clone(c.objects), func(o *adObject) bool { return o.usn <= since })
	slices.SortFunc(changed, func(a, b *adObject) int { return int(a.usn - b.usn) })
	more := int64(0)
	if len(changed) > 2 {
		changed, more = changed[:2], 1
	}
	var out []*ldapwire.Message
	for _, o := range changed {
		list := attrs(objectGUID, o.guid) // and of what changed only that it did
		if o.deleted {
			list = append(list, attrs("isDeleted", "TRUE")...)
		}
		out = append(out, &ldapwire.Message{Body: &ldapwire.SearchResultEntry{ObjectName: o.name, Attributes: list}})
		since = o.usn
	}
	r := ldapwire.DirSync{Flags: more, Cookie: binary.BigEndian.AppendUint64(nil, uint64(since))}
	last := result(op, ldapwire.Success)
	last.Controls = []ldapwire.Control{{Type: ldapwire.OIDDirSync, Value: r.Encode()}}
	return append(out, last)
}

// TestDirSync: what changes in a simulated domain is heard of, deletions and renamings among it, across restarts.
func TestDirSync(t *testing.T) {
	c := startDomainController(t)
	for i := range 5 {
		c.add(fmt.Sprintf("CN=d%d,%s", i, suffixDN), "objectClass", "device", "description", "0")
	}
	link := wrappertest.NewLink()
	prepare(link, devicePatterns("cn={}", "description", "objectClass"))
	options := wrappers.Options{"poll_ms": int64(100)}
	stop := startAttached(t, link, c.ln.Addr().String(), options, nil)
	link.Await(t, "the listing", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) == 5 })
	n := 5
	c.set("CN=d0,"+suffixDN, "description", "1")
	n = hears(t, link, n, "put cn=d0 1")
	c.touch("CN=d1,"+suffixDN, func(o *adObject) { o.name = "CN=e1," + suffixDN })
	n = hears(t, link, n, "delete cn=d1", "put cn=e1 0")
	c.del("CN=e1," + suffixDN)
	n = hears(t, link, n, "delete cn=e1")
	// What is written back is looked at once, when it is settled, and is no news. No round shows it again.
	link.PushPut("cn=d2", string(device("5")))
	done(t, link, "cn=d2")
	link.PushPut("cn=new", string(device("6")))
	done(t, link, "cn=new")
	c.set("CN=d3,"+suffixDN, "description", "7")
	n = hears(t, link, n, "put cn=d3 7")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	c.set("CN=d0,"+suffixDN, "description", "8")
	c.del("CN=d4," + suffixDN)
	before := len(link.Observations())
	stop = startAttached(t, link, c.ln.Addr().String(), options, nil)
	n = hears(t, link, n, "put cn=d0 8", "delete cn=d4")
	if shown := len(link.Observations()) - before; shown != 2 {
		t.Errorf("%d observations were made of two changes", shown)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// A cookie that is too old: all is listed.
	c.mu.Lock()
	c.expired = true
	c.mu.Unlock()
	c.del("CN=d3," + suffixDN)
	started := make(chan struct{})
	go func() {
		defer close(started)
		link.Await(t, "the refusal", func() bool { return link.Counted("cookie_lost") > 0 })
		c.mu.Lock()
		c.expired = false
		c.mu.Unlock()
	}()
	startAttached(t, link, c.ln.Addr().String(), options, nil)
	<-started
	hears(t, link, n, "delete cn=d3")
}
