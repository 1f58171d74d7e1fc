package lattice

import (
	"cmp"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"unsafe"
)

// Limits of numbers. They bound what one comparison or sum can cost.
const (
	maxDigits   = 100
	maxExponent = 1000
	quoDigits   = 40
)

var (
	errDigits   = fmt.Errorf("%w: a number of more than %d digits", ErrTooLarge, maxDigits)
	errExponent = fmt.Errorf("%w: a number with an exponent beyond ±%d", ErrTooLarge, maxExponent)
)

// ParseNumber reads a number as RFC 8259, section 6, writes it. It becomes an int when it is integral and fits int64
// (also 21.0 and 1e2), else a decimal. Limits: 100 significant digits, exponents within ±1000.
func ParseNumber(text string) (Value, error) {
	v, n, err := scanNumber(text)
	if err != nil {
		return Value{}, err
	}
	if n != len(text) {
		return Value{}, notNumber(text)
	}
	return v, nil
}

func notNumber(text string) error {
	if len(text) > 40 {
		text = text[:40] + "…"
	}
	return fmt.Errorf("%w: %q is not a number", ErrInvalid, text)
}

func isDigit(s string, i int) bool { return i < len(s) && s[i]-'0' <= 9 }

// scanNumber reads the number that s begins with, and says how long it is.
func scanNumber(s string) (Value, int, error) {
	var digits [maxDigits]byte // significant ones, without zeros at either end
	n, zeros := 0, 0           // zeros are read but not yet known to be inner ones
	i, neg := 0, false
	take := func(c byte) bool {
		if c == '0' {
			if n > 0 {
				zeros++
			}
			return true
		}
		if n+zeros >= maxDigits {
			return false
		}
		for ; zeros > 0; zeros-- {
			digits[n] = '0'
			n++
		}
		digits[n] = c
		n++
		return true
	}
	if i < len(s) && s[i] == '-' {
		neg = true
		i++
	}
	if !isDigit(s, i) {
		return Value{}, 0, notNumber(s)
	}
	if s[i] == '0' && isDigit(s, i+1) {
		return Value{}, 0, fmt.Errorf("%w: a number with a leading zero", ErrInvalid)
	}
	for ; isDigit(s, i); i++ {
		if !take(s[i]) {
			return Value{}, 0, errDigits
		}
	}
	exp := 0
	if i < len(s) && s[i] == '.' {
		i++
		if !isDigit(s, i) {
			return Value{}, 0, notNumber(s)
		}
		for ; isDigit(s, i); i++ {
			if !take(s[i]) {
				return Value{}, 0, errDigits
			}
			exp--
		}
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		i++
		sign, e := 1, 0
		if i < len(s) && (s[i] == '+' || s[i] == '-') {
			if s[i] == '-' {
				sign = -1
			}
			i++
		}
		if !isDigit(s, i) {
			return Value{}, 0, notNumber(s)
		}
		for ; isDigit(s, i); i++ {
			if e < 1<<30 {
				e = e*10 + int(s[i]-'0')
			}
		}
		exp += sign * e
	}
	exp += zeros
	switch {
	case n == 0:
		return Int(0), i, nil
	case exp < -maxExponent || exp > maxExponent:
		return Value{}, 0, errExponent
	case n <= 18:
		c := int64(0)
		for _, d := range digits[:n] {
			c = c*10 + int64(d-'0')
		}
		if neg {
			c = -c
		}
		v, _ := small(c, exp)
		return v, i, nil
	}
	c, _ := new(big.Int).SetString(string(digits[:n]), 10)
	if neg {
		c.Neg(c)
	}
	v, err := normal(c, exp)
	return v, i, err
}

var pow10 = func() (p [19]int64) {
	p[0] = 1
	for i := 1; i < len(p); i++ {
		p[i] = p[i-1] * 10
	}
	return p
}()

func bigPow10(n int) *big.Int {
	if n < len(pow10) {
		return big.NewInt(pow10[n])
	}
	return new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
}

// mul is a×b, and whether that fits.
func mul(a, b int64) (int64, bool) {
	ua, ub := magnitude(a), magnitude(b)
	hi, lo := bits.Mul64(ua, ub)
	if hi != 0 || lo > math.MaxInt64 {
		return 0, false
	}
	if (a < 0) != (b < 0) {
		return -int64(lo), true
	}
	return int64(lo), true
}

func magnitude(a int64) uint64 {
	if a < 0 {
		return -uint64(a)
	}
	return uint64(a)
}

// small is the value coef×10^exp, normalised.
func small(coef int64, exp int) (Value, error) {
	if coef == 0 {
		return Int(0), nil
	}
	for exp < 0 && coef%10 == 0 {
		coef /= 10
		exp++
	}
	if exp >= 0 && exp < len(pow10) {
		if n, ok := mul(coef, pow10[exp]); ok {
			return Int(n), nil
		}
	}
	if exp == 0 {
		return Int(coef), nil // the lowest int64, which mul does not reach
	}
	for coef%10 == 0 {
		coef /= 10
		exp++
	}
	if exp < -maxExponent || exp > maxExponent {
		return Value{}, errExponent
	}
	return Value{kind: DecimalKind, num: coef, exp: int32(exp)}, nil
}

// normal is small for coefficients of any size. It may keep and change coef.
func normal(coef *big.Int, exp int) (Value, error) {
	if coef.IsInt64() {
		return small(coef.Int64(), exp)
	}
	if coef.BitLen() > 1<<16 {
		return Value{}, errDigits
	}
	ten, rest, q := big.NewInt(10), new(big.Int), new(big.Int)
	for {
		q.QuoRem(coef, ten, rest)
		if rest.Sign() != 0 {
			break
		}
		coef, q = q, coef
		exp++
	}
	if exp >= 0 && exp < len(pow10) {
		// Whole numbers in the int64 range stay ints, also when zeros were taken from them above.
		if whole := new(big.Int).Mul(coef, bigPow10(exp)); whole.IsInt64() {
			return Int(whole.Int64()), nil
		}
	}
	if coef.IsInt64() {
		return small(coef.Int64(), exp)
	}
	if exp < -maxExponent || exp > maxExponent {
		return Value{}, errExponent
	}
	if decimalDigits(coef) > maxDigits {
		return Value{}, errDigits
	}
	return Value{kind: DecimalKind, exp: int32(exp), ptr: unsafe.Pointer(coef)}, nil
}

func decimalDigits(c *big.Int) int {
	if c.IsInt64() {
		u, n := magnitude(c.Int64()), 1
		for ; u >= 10; u /= 10 {
			n++
		}
		return n
	}
	n := len(c.Text(10))
	if c.Sign() < 0 {
		n--
	}
	return n
}

func (v Value) big() *big.Int {
	if v.kind == DecimalKind && v.ptr != nil {
		return (*big.Int)(v.ptr)
	}
	return big.NewInt(v.num)
}

// fits gives a number's coefficient and exponent, if the coefficient fits int64.
func (v Value) fits() (coef int64, exp int, ok bool) {
	return v.num, int(v.exp), v.kind == IntKind || v.ptr == nil
}

// Decimal gives a number as coef×10^exp; coef is the caller's own. Of anything else it is 0.
func (v Value) Decimal() (coef *big.Int, exp int) {
	if !v.IsNumber() {
		return new(big.Int), 0
	}
	return new(big.Int).Set(v.big()), int(v.exp)
}

// Number is the canonical text of an int or decimal, "21.5", plain unless it would be long ("1e30"); of anything else "".
func (v Value) Number() string {
	if !v.IsNumber() {
		return ""
	}
	return string(v.appendNumber(make([]byte, 0, 24)))
}

func (v Value) appendNumber(dst []byte) []byte {
	if v.kind == IntKind {
		return strconv.AppendInt(dst, v.num, 10)
	}
	start := len(dst)
	if v.ptr == nil {
		dst = strconv.AppendInt(dst, v.num, 10)
	} else {
		dst = v.big().Append(dst, 10)
	}
	if dst[start] == '-' {
		start++
	}
	n, exp := len(dst)-start, int(v.exp)
	first := n + exp - 1 // the power of ten of the first digit
	switch {
	case exp >= 0 && first <= 20:
		for ; exp > 0; exp-- {
			dst = append(dst, '0')
		}
	case exp < 0 && first >= 0:
		dst = append(dst, 0)
		copy(dst[start+first+2:], dst[start+first+1:])
		dst[start+first+1] = '.'
	case exp < 0 && first >= -7:
		pad := 1 - first // "0." and the zeros behind it
		for range pad {
			dst = append(dst, '0')
		}
		copy(dst[start+pad:], dst[start:start+n])
		for i := range pad {
			dst[start+i] = '0'
		}
		dst[start+1] = '.'
	default:
		if n > 1 {
			dst = append(dst, 0)
			copy(dst[start+2:], dst[start+1:])
			dst[start+1] = '.'
		}
		dst = append(dst, 'e')
		dst = strconv.AppendInt(dst, int64(first), 10)
	}
	return dst
}

// CompareNumbers orders two numbers by size. Anything that is not a number counts as 0.
func CompareNumbers(a, b Value) int {
	if a.kind == IntKind && b.kind == IntKind {
		return cmp.Compare(a.num, b.num)
	}
	if !a.IsNumber() {
		a = Int(0)
	}
	if !b.IsNumber() {
		b = Int(0)
	}
	ca, cb := a.big(), b.big()
	if s := cmp.Compare(ca.Sign(), cb.Sign()); s != 0 || ca.Sign() == 0 {
		return s
	}
	// Signs are equal. The place of the first digit decides unless it is the same, so that scaling is never by more
	// than the digits at hand.
	fa, fb := decimalDigits(ca)+int(a.exp), decimalDigits(cb)+int(b.exp)
	if fa != fb {
		return cmp.Compare(fa, fb) * ca.Sign()
	}
	if d := int(a.exp) - int(b.exp); d > 0 {
		ca = new(big.Int).Mul(ca, bigPow10(d))
	} else if d < 0 {
		cb = new(big.Int).Mul(cb, bigPow10(-d))
	}
	return ca.Cmp(cb)
}

// AddNumbers is a+b, exactly. An ErrInvalid if either is no number, an ErrTooLarge beyond the limits of numbers.
func AddNumbers(a, b Value) (Value, error) {
	if !a.IsNumber() || !b.IsNumber() {
		return Value{}, notNumbers(a, b)
	}
	if a.exp < b.exp {
		a, b = b, a
	}
	d := int(a.exp) - int(b.exp)
	ca, _, okA := a.fits()
	cb, exp, okB := b.fits()
	if okA && okB && d < len(pow10) {
		if scaled, ok := mul(ca, pow10[d]); ok {
			if sum := scaled + cb; (sum > scaled) == (cb > 0) {
				return small(sum, exp)
			}
		}
	}
	sum := new(big.Int).Mul(a.big(), bigPow10(d))
	return normal(sum.Add(sum, b.big()), int(b.exp))
}

// MulNumbers is a×b, exactly. Errors as for AddNumbers.
func MulNumbers(a, b Value) (Value, error) {
	if !a.IsNumber() || !b.IsNumber() {
		return Value{}, notNumbers(a, b)
	}
	ca, ea, okA := a.fits()
	cb, eb, okB := b.fits()
	if okA && okB {
		if p, ok := mul(ca, cb); ok {
			return small(p, ea+eb)
		}
	}
	return normal(new(big.Int).Mul(a.big(), b.big()), int(a.exp)+int(b.exp))
}

// QuoNumbers is a÷b to at most 40 significant digits, half to even; exact says that nothing was rounded. Division by
// zero is an ErrInvalid.
func QuoNumbers(a, b Value) (q Value, exact bool, err error) {
	if !a.IsNumber() || !b.IsNumber() {
		return Value{}, false, notNumbers(a, b)
	}
	ca, cb := a.big(), b.big()
	if cb.Sign() == 0 {
		return Value{}, false, fmt.Errorf("%w: division by zero", ErrInvalid)
	}
	exp := int(a.exp) - int(b.exp)
	// Two digits more than wanted, so that the remainder only breaks ties.
	shift := max(0, quoDigits+2-decimalDigits(ca)+decimalDigits(cb))
	quo, rest := new(big.Int).QuoRem(new(big.Int).Mul(ca, bigPow10(shift)), cb, new(big.Int))
	exp -= shift
	exact = rest.Sign() == 0
	if drop := decimalDigits(quo) - quoDigits; drop > 0 {
		unit := bigPow10(drop)
		cut, low := new(big.Int).QuoRem(quo, unit, new(big.Int))
		half := new(big.Int).Quo(unit, big.NewInt(2))
		c := low.CmpAbs(half)
		if low.Sign() != 0 {
			exact = false
		}
		if c > 0 || c == 0 && (rest.Sign() != 0 || cut.Bit(0) == 1) {
			cut.Add(cut, big.NewInt(int64(ca.Sign()*cb.Sign())))
		}
		quo, exp = cut, exp+drop
	}
	q, err = normal(quo, exp)
	return q, exact, err
}

func notNumbers(a, b Value) error {
	if a.IsNumber() {
		a = b
	}
	return fmt.Errorf("%w: arithmetic on a value that is %s, not a number", ErrInvalid, a.kind)
}
