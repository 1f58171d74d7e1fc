package ldap

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// A slapd is a real server of one test's own, with the suffix dc=plant.
type slapd struct {
	t        testing.TB
	dir      string
	addr     string
	overlays string
	cmd      *exec.Cmd
}

const (
	rootDN   = "cn=admin,dc=plant"
	rootPW   = "secret"
	suffixDN = "dc=plant"
)

// withSyncprov is what a database needs to be followed.
const withSyncprov = "overlay syncprov\nsyncprov-checkpoint 100 1\nsyncprov-sessionlog 1000\n"

// startSlapd starts one; overlays are added to its database's configuration.
func startSlapd(t testing.TB, overlays string) *slapd {
	t.Helper()
	if _, err := exec.LookPath("slapd"); err != nil {
		if _, err := os.Stat("/usr/sbin/slapd"); err != nil {
			t.Skip("slapd is not installed")
		}
	}
	s := &slapd{t: t, dir: t.TempDir(), addr: freeAddr(t), overlays: overlays}
	if err := os.Mkdir(filepath.Join(s.dir, "db"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(s.kill)
	s.must(&ldapwire.AddRequest{Entry: suffixDN, Attributes: attrs("objectClass", "domain", "dc", "plant")})
	return s
}

func freeAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func (s *slapd) config() string {
	modules := "/usr/lib/ldap"
	if found, _ := filepath.Glob("/usr/lib*/openldap/back_mdb*"); len(found) > 0 {
		modules = filepath.Dir(found[0])
	}
	return fmt.Sprintf(`include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
include /etc/ldap/schema/nis.schema
modulepath %s
moduleload back_mdb
moduleload syncprov
moduleload constraint
database mdb
suffix %s
rootdn %s
rootpw %s
directory %s/db
maxsize 268435456
dbnosync
sizelimit unlimited
index objectClass,entryUUID,entryCSN eq
%s`, modules, suffixDN, rootDN, rootPW, s.dir, s.overlays)
}

// start starts it over the data that it has.
func (s *slapd) start() {
	s.t.Helper()
	conf := filepath.Join(s.dir, "slapd.conf")
	if err := os.WriteFile(conf, []byte(s.config()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	path, err := exec.LookPath("slapd")
	if err != nil {
		path = "/usr/sbin/slapd"
	}
	s.cmd = exec.Command(path, "-f", conf, "-h", "ldap://"+s.addr, "-d", "0")
	var said strings.Builder
	s.cmd.Stderr = &said
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for range 500 {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			c.Close()
			return
		}
		time.Sleep(10 * time.Millisecond) // nobody tells when it listens
	}
	s.t.Fatalf("slapd does not answer: %s", said.String())
}

// kill ends it without warning.
func (s *slapd) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(syscall.SIGKILL)
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// openAs connects, past the gateway.
func openAs(addr, name, password string) (*session, error) {
	c, err := dialSession(context.Background(), &wrappers.Upstream{Addr: addr}, nil, nil, 64<<20, usualPatience)
	if err != nil {
		return nil, err
	}
	if err := c.bind(context.Background(), name, password); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// must performs an operation that has to succeed.
func (s *slapd) must(body ldapwire.Body, controls ...ldapwire.Control) {
	s.t.Helper()
	if err := s.try(body, controls...); err != nil {
		s.t.Fatalf("%s: %v", body.Op(), err)
	}
}

func (s *slapd) try(body ldapwire.Body, controls ...ldapwire.Control) error {
	c, err := openAs(s.addr, rootDN, rootPW)
	if err != nil {
		return err
	}
	defer c.close()
	m, err := c.do(context.Background(), body, controls...)
	if err != nil {
		return err
	}
	return resultError(m)
}

// get reads an entry, nil if it is not there.
func (s *slapd) get(dn string, attributes ...string) *ldapwire.SearchResultEntry {
	s.t.Helper()
	c, err := openAs(s.addr, rootDN, rootPW)
	if err != nil {
		s.t.Error(err)
		return nil
	}
	defer c.close()
	e, err := c.one(context.Background(), dn, attributes...)
	if err != nil {
		s.t.Error(err)
	}
	return e
}

// attrs makes attributes of names and values; a name that comes again has several.
func attrs(pairs ...string) (out []ldapwire.PartialAttribute) {
	for i := 0; i+1 < len(pairs); i += 2 {
		name, v := pairs[i], []byte(pairs[i+1])
		if n := len(out); n > 0 && out[n-1].Type == name {
			out[n-1].Vals = append(out[n-1].Vals, v)
			continue
		}
		out = append(out, ldapwire.PartialAttribute{Type: name, Vals: [][]byte{v}})
	}
	return out
}

func replace(dn string, pairs ...string) *ldapwire.ModifyRequest {
	q := &ldapwire.ModifyRequest{Object: dn}
	for _, a := range attrs(pairs...) {
		q.Changes = append(q.Changes, ldapwire.Change{Operation: ldapwire.ModifyReplace, Modification: a})
	}
	return q
}
