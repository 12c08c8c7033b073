# The promise: the pure parts keep theirs (t/unit/*.cpp, compiled into build/unit-tests).
use v5.36;
use Billing::Unit;

Billing::Unit->run;
