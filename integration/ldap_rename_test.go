package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const renameMapping = `
register "site/{site}/{sensor}" {
  fields = { value = number, unit = string }
  bind "http" "/v1/{site}/{sensor}" {}
  bind "ldap" "cn={sensor},ou={site}" {
    wrapper = ["hq"]
    map     = { value = number(payload.description), unit = payload.serialNumber }
    create  = { objectClass = ["device"] }
  }
  bind "ldap" "cn={sensor},ou={site}" {
    wrapper = ["front"]
    map     = { value = number(payload.description), unit = payload.serialNumber }
    create  = { objectClass = ["device"] }
  }
}
`

func newRenamePlant(t *testing.T, database, more string) (d *directoryPlant, rename func(old, rdn, superior string) error) {
	t.Helper()
	port := freePort(t)
	d = newDirectoryPlant(t, database, renameMapping, more+fmt.Sprintf(`
}

wrapper "ldap" "front" {
  listen    = "127.0.0.1:%d"
  base      = "dc=plant"
  anonymous = "write"
`, port))
	return d, func(old, rdn, superior string) error {
		args := []string{"-x", "-H", fmt.Sprintf("ldap://127.0.0.1:%d", port), "-r"}
		if superior != "" {
			args = append(args, "-s", superior)
		}
		if _, errs, code := run(t, "", "ldapmodrdn", append(args, old, rdn)...); code != 0 {
			return fmt.Errorf("ldapmodrdn: %d %s", code, errs)
		}
		return nil
	}
}

// entry gives the identity of an entry and what no bind maps.
func (d *directoryPlant) entry(dn string) string {
	lines := d.dir.search(dn, "(objectClass=*)", "entryUUID", "owner")[dn]
	slices.Sort(lines)
	return strings.Join(lines, "|")
}

// TestLDAPRenameOut: a register that is renamed elsewhere is renamed in the directory, where it keeps what no bind maps.
func TestLDAPRenameOut(t *testing.T) {
	for _, way := range []struct{ name, database, settings string }{
		{"syncrepl", syncprov, "create_parents = true"},
		{"poll", "", "create_parents = true\n  poll_ms = 100\n  max_lost = 100"},
	} {
		t.Run(way.name, func(t *testing.T) {
			d, rename := newRenamePlant(t, way.database, way.settings)
			d.start()
			d.stands(1)
			d.put("/v1/berlin/oven-1", `{"value":1,"unit":"C"}`)
			d.has("cn=oven-1,ou=berlin,dc=plant", "description: 1|serialNumber: C", "description", "serialNumber")
			d.dir.ldif("dn: cn=oven-1,ou=berlin,dc=plant\nchangetype: modify\nadd: owner\nowner: cn=admin,dc=plant\n")
			want := d.entry("cn=oven-1,ou=berlin,dc=plant")
			for _, step := range []struct{ old, rdn, superior, new string }{
				{"cn=oven-1,ou=berlin,dc=plant", "cn=oven-2", "", "cn=oven-2,ou=berlin,dc=plant"},
				{"cn=oven-2,ou=berlin,dc=plant", "cn=oven-2", "ou=bonn,dc=plant", "cn=oven-2,ou=bonn,dc=plant"}, // there is no such parent yet
				{"cn=oven-2,ou=bonn,dc=plant", "cn=oven-1", "ou=berlin,dc=plant", "cn=oven-1,ou=berlin,dc=plant"},
			} {
				if step.superior == "ou=bonn,dc=plant" {
					d.put("/v1/bonn/oven-0", `{"value":0}`) // the front has it
				}
				if err := rename(step.old, step.rdn, step.superior); err != nil {
					t.Fatal(err)
				}
				d.has(step.new, "cn: "+strings.TrimPrefix(step.rdn, "cn=")+"|description: 1|owner: cn=admin,dc=plant|serialNumber: C", "cn", "owner", "description", "serialNumber")
				d.has(step.old, "gone")
				if got := d.entry(step.new); got != want {
					t.Errorf("%s is another entry: %s, before %s", step.new, got, want)
				}
			}
			// The write behind it is one to the new name.
			d.put("/v1/berlin/oven-1", `{"value":5,"unit":"C"}`)
			d.has("cn=oven-1,ou=berlin,dc=plant", "description: 5|owner: cn=admin,dc=plant", "owner", "description")
			d.wantHistory("site/berlin/oven-1", 4)
			d.equal()
		})
	}
}

// TestLDAPRenameOutKilled: the gateway killed while registers are renamed: each entry is there in the end, and is the one it was.
func TestLDAPRenameOutKilled(t *testing.T) {
	d, rename := newRenamePlant(t, syncprov, "create_parents = true")
	d.program = plainProgram(t)
	d.dir.unit("r")
	d.start()
	d.stands(1)
	const n = 10
	want := map[string]string{}
	for i := range n {
		d.put(fmt.Sprintf("/v1/r/a%d", i), fmt.Sprintf(`{"value":%d}`, i))
	}
	for i := range n {
		dn := fmt.Sprintf("cn=a%d,ou=r,dc=plant", i)
		d.has(dn, fmt.Sprintf("description: %d", i), "description")
		d.dir.ldif("dn: " + dn + "\nchangetype: modify\nadd: owner\nowner: cn=admin,dc=plant\n")
		want[fmt.Sprint(i)] = d.entry(dn)
	}
	for round, names := range []string{"ab", "bc", "cd", "da"} {
		for i := range n {
			if err := rename(fmt.Sprintf("cn=%c%d,ou=r,dc=plant", names[0], i), fmt.Sprintf("cn=%c%d", names[1], i), ""); err != nil {
				t.Fatal(err)
			}
			if i == 3+round {
				d.kill()
				d.start()
				eventually(t, "the front stands", func() bool {
					return rename("cn=none,ou=r,dc=plant", "cn=none2", "") != nil && within(time.Second, func() bool { return d.read("site/r/"+names[1:]+"0") != "" })
				})
			}
		}
		for i := range n {
			dn := fmt.Sprintf("cn=%c%d,ou=r,dc=plant", names[1], i)
			d.has(dn, fmt.Sprintf("description: %d", i), "description")
			if got := d.entry(dn); got != want[fmt.Sprint(i)] {
				t.Errorf("%s: got %q, want %q", dn, got, want[fmt.Sprint(i)])
			}
			d.has(fmt.Sprintf("cn=%c%d,ou=r,dc=plant", names[0], i), "gone")
		}
	}
	d.equal()
}
