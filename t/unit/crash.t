# The promise: the table in shared memory is whole again wherever a worker dies in it (t/unit/table_crash_test.cpp, apart from the
# other unit tests because it takes longest).
use v5.36;
use Billing::Unit;

Billing::Unit->run(filter => 'TableCrash.*');
