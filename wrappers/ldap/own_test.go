package ldap

import "testing"

// What was meant before somebody else has written an entry, or by a write that was refused, says nothing of its values.
func TestMeantOfOwnVersionsAlone(t *testing.T) {
	one := func(name string) map[string]val { return map[string]val{name: {[]byte("x")}} }
	for _, step := range []struct {
		name    string
		version string // that the second write is made onto
		first   string // version of the first; "": it was refused
		want    int
	}{
		{"own on own", "1", "1", 2},
		{"own on somebody else's", "2", "1", 1},
		{"own on a refused one", "0", "", 1},
	} {
		o := newOwnWrites("cn=gateway")
		p := path("cn=a")
		o.begin(p, "0", one("description"))
		o.end(p, step.first)
		o.begin(p, step.version, one("l"))
		o.end(p, "3")
		o.begin(p, "3", one("later"))
		if got := o.meant("cn=a", "3"); len(got) != step.want || got["l"] == nil {
			t.Errorf("%s: got %v", step.name, got)
		}
		o.end(p, "4")
	}
}
