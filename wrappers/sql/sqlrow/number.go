package sqlrow

import (
	"math/big"
	"strconv"
	"strings"
)

// A Number is an exact decimal number, as text: "-12.50", "1e300".
type Number string

// mostExponent bounds what a number's text may stand for: numeric has 131,072 digits before the
// point and 16,383 behind it.
const mostExponent = 200_000

// Parts gives n as coef * 10^exp, without zeros at the end of coef. False: it is no number.
func (n Number) Parts() (coef *big.Int, exp int, ok bool) {
	s := string(n)
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		e, err := strconv.Atoi(s[i+1:])
		if err != nil || e > mostExponent || e < -mostExponent {
			return nil, 0, false
		}
		exp, s = e, s[:i]
	}
	whole, frac, _ := strings.Cut(s, ".")
	digits := strings.TrimLeft(whole, "+-") + frac
	if digits == "" || strings.Trim(digits, "0123456789") != "" || len(digits) > mostExponent {
		return nil, 0, false
	}
	exp -= len(frac)
	short := strings.TrimRight(digits, "0")
	if short == "" {
		return new(big.Int), 0, true
	}
	if short != digits {
		exp += len(digits) - len(short)
	}
	if exp > 0 && exp <= 18 { // an integer as such
		short, exp = short+strings.Repeat("0", exp), 0
	}
	coef, ok = new(big.Int).SetString(short, 10)
	if ok && strings.HasPrefix(whole, "-") {
		coef.Neg(coef)
	}
	return coef, exp, ok
}

// Equal tells whether two numbers are the same, however they are written.
func (n Number) Equal(o Number) bool {
	if n == o {
		return true
	}
	c1, e1, ok1 := n.Parts()
	c2, e2, ok2 := o.Parts()
	return ok1 && ok2 && e1 == e2 && c1.Cmp(c2) == 0
}

// Text writes n without an exponent where that is short.
func (n Number) Text() string {
	coef, exp, ok := n.Parts()
	if !ok || exp > 40 || exp < -40 {
		return string(n)
	}
	s := coef.String()
	if exp >= 0 {
		return s + strings.Repeat("0", exp)
	}
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	if len(s) <= -exp {
		s = strings.Repeat("0", -exp-len(s)+1) + s
	}
	return sign + s[:len(s)+exp] + "." + s[len(s)+exp:]
}
