package gateway

import (
	"context"
	"sync/atomic"

	"github.com/spooksystems/gateway/wrappers"
)

// A User may log on to what the gateway itself answers.
type User struct {
	Name     string
	Password Secret            // empty: no logon by password
	Keys     []string          // SSH public keys, in authorized_keys form
	As       map[string]string // protocol to the name used there; default: Name
}

// nameIn is the name the user logs on with in a protocol.
func (u *User) nameIn(protocol string) string {
	if as, ok := u.As[protocol]; ok {
		return as
	}
	return u.Name
}

// A userTable is the users in force. A reload replaces the list; running wrappers see the new one
// at the next logon.
type userTable struct{ list atomic.Pointer[[]User] }

func (t *userTable) use(users []User) { t.list.Store(&users) }

func (t *userTable) users() []User {
	if l := t.list.Load(); l != nil {
		return *l
	}
	return nil
}

// logon is the table as one protocol sees it.
func (t *userTable) logon(protocol string) wrappers.Logon { return &logon{t, protocol} }

type logon struct {
	table    *userTable
	protocol string
}

func (l *logon) Any() bool { return len(l.table.users()) > 0 }

// Password looks at every user whatever it finds, so its time tells neither whether a name exists
// nor which.
func (l *logon) Password(_ context.Context, name, password string) (string, error) {
	principal, found := "", false
	for _, u := range l.table.users() {
		right := u.Password.Equal(password) && !u.Password.Empty()
		if NewSecret(u.nameIn(l.protocol)).Equal(name) && right {
			principal, found = u.Name, true
		}
	}
	if !found {
		return "", wrappers.Refuse(wrappers.ErrDenied, "wrong user or password")
	}
	return principal, nil
}
