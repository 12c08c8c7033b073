# The promise: the pure parts, the coroutines, the drivers and the table keep theirs (t/unit/*.cpp in build/unit-tests).
use v5.36;
use Billing::Unit;

Billing::Unit->run(filter => '*-TableCrash.*');
