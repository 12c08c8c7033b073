# Promise (G21): what a host let through while nobody could be asked is charged once, in the period of its time, whatever the cap.
use strict;
use warnings;
use Test::More;
use Billing::Database;

my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free',
    quotas => { a => { period => 'day' }, w => { windows => { c => { period => 'cycle' }, s => { period => 'sliding', length => '10m' } } } },
    plans => { free => { quotas => { a => 10, w => { c => 10, s => 10 } } } } });
my $d = $db->dbi;
$d->do(q{SELECT billing.ensure_accounts('{x}')});
my $one = '00000000-0000-0000-0000-000000000001';
my $now = time;

# rows: [account, quota, at, units, creates]
sub charge {
    my ($seq, @rows) = @_;
    my @c = map { my $i = $_; [map { $_->[$i] } @rows] } 0 .. 4;
    return scalar $d->selectrow_array('SELECT billing.charge_late($1, $2, $3, $4, $5, $6, $7, $8)', undef, $one, 'h1', $seq, @c);
}
sub rows {
    my ($account, $quota) = @_;
    return $db->psql("SELECT q.issued, q.used, q.late FROM billing.quota_periods q JOIN billing.accounts a ON a.id = q.account_id
        JOIN billing.limits l ON l.limit_no = q.limit_no WHERE a.external_id = '$account' AND l.limit_key = '$quota'
        AND q.used > 0 ORDER BY q.period");
}
sub fund {
    my ($quota, $need) = @_;
    return scalar $d->selectrow_array("SELECT granted FROM billing.quota_fund('{1}', ARRAY[(SELECT id FROM billing.accounts WHERE external_id = 'x')],
        ARRAY[(SELECT limit_no FROM billing.limits WHERE limit_key = '$quota')], '{0}', '{$need}', '{$need}', '{0}')");
}

is charge(1, ['x', 'a', $now, 4, 'f'], ['x', 'a', $now, 3, 'f']), 'ok', 'the first batch';
is rows('x', 'a'), '7|7|7', 'issued and used: nothing is held anywhere';
is charge(1, ['x', 'a', $now, 4, 'f']), 'dup', 'sent again';
is charge(3, ['x', 'a', $now, 4, 'f']), 'gap', 'one too early';
is rows('x', 'a'), '7|7|7', 'neither does anything';
is fund('a', 4), 0, 'it counts: 3 of 10 are left';
is fund('a', 3), 3, 'and can be had';
is charge(2, ['x', 'a', $now, 20, 'f']), 'ok', 'more than the cap';
is rows('x', 'a'), '30|27|27', 'is charged all the same';
is fund('a', 1), 0, 'and nothing more is issued';

is charge(3, ['x', 'a', $now - 5 * 86400, 2, 'f']), 'ok', 'of a day that is long over';
is rows('x', 'a'), "2|2|2\n30|27|27", 'belongs to that day';

is charge(4, ['x', 'w:c', $now, 9, 'f'], ['x', 'w:s', $now, 9, 'f']), 'ok', 'windows that overlap others';
is rows('x', 'w:c'), '9|9|9', 'a billing month';
is fund('w:c', 2), 0, 'counts it';
is fund('w:s', 2), 0, 'a sliding window too';
is fund('w:s', 1), 1, 'as far as it goes';

is charge(5, ['new', 'a', $now, 2, 't'], ['nobody', 'a', $now, 2, 'f'], ['x', 'none', $now, 2, 'f']), 'ok', 'an account that is not known yet';
is rows('new', 'a'), '2|2|2', 'is made where its location makes accounts';
is $db->psql(q{SELECT count(*) FROM billing.accounts WHERE external_id = 'nobody'}), 0, 'and only there';
like $db->log, qr/WARNING:  charge_late: instance \S+1 batch 5: 2 of 3 rows name no account or no quota/, 'what cannot be charged is said';
is $db->psql(q{SELECT count(*), sum((after->>'units')::bigint) FROM billing.audit_log WHERE action = 'charge_late' AND actor = 'gate'}), '6|49',
    'S11: each stands in the audit log';

for (['a NULL', ['x', undef, $now, 1, 'f']], ['no units', ['x', 'a', $now, 0, 'f']], ['negative units', ['x', 'a', $now, -1, 'f']]) {
    my ($what, $row) = @$_;
    ok !eval { charge(6, $row); 1 }, "$what is refused";
    like $@, qr/charge_late: NULL, or units below 1/, 'and says why';
}
is charge(6), 'ok', 'an empty batch takes its place';
is $d->selectrow_array(q{SELECT billing.usage_flush($1, 'h1', 1, '{}', '{}', '{}', '{}', '{}')}, undef, $one), 'ok', 'usage has a sequence of its own';
done_testing;
