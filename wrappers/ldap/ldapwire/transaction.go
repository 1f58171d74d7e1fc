package ldapwire

// DecodeEndTransaction reads the value of a request that ends a transaction (RFC 5805, section 2.3).
func DecodeEndTransaction(value []byte) (commit bool, id string, err error) {
	r := reader{value}
	q, err := r.sequence("the end of a transaction")
	if err != nil {
		return false, "", err
	}
	commit = true
	if q.peek() == tagBoolean {
		if commit, err = q.bool("commit"); err != nil {
			return false, "", err
		}
	}
	id, err = q.text("the transaction's identifier")
	return commit, id, err
}

// DecodePasswordModifyUser reads of whom a password is to be changed (RFC 3062, section 2); "": of who asks.
func DecodePasswordModifyUser(value []byte) (string, error) {
	if value == nil {
		return "", nil
	}
	r := reader{value}
	q, err := r.sequence("a password modify request")
	if err != nil {
		return "", err
	}
	user, _, err := q.maybe(context)
	return string(user), err
}
