# Promise (G11, G18): an account never has more things of a stock than its limit allowed when they were asked for: what is being made
# is counted, once for each name, whatever is repeated, comes late or never comes; a delete gives back, never below zero; after a
# downgrade nothing but a create is refused; the application may state what there is; and the ledger accounts for every change.
use strict;
use warnings;
use Billing::Conservation qw(stock_astray);
use Billing::Database;
use JSON::PP;
use Test::More;

my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free', quotas => {}, stock => { projects => {}, seats => {} },
    plans => { free => { stock => { projects => 3, seats => 1 } }, none => { rank => 1 },
               all => { rank => 2, stock => { projects => undef, seats => 5 } } } });
my $d = $db->dbi;
my %no = map { $_ => $d->selectrow_array('SELECT stock_no FROM billing.stocks WHERE stock_key = $1', undef, $_) } qw(projects seats);
sub id { return scalar $d->selectrow_array('SELECT id FROM billing.accounts WHERE external_id = $1', undef, $_[0]) }
sub account { my ($name, $plan) = @_; $d->do('SELECT billing.ensure_accounts(ARRAY[$1])', undef, $name);
    $d->do('SELECT billing.account_set($1, $2, $3)', undef, $name, encode_json({ plan => $plan }), 'test') if $plan; return $name }
# One request's places: [STOCK, QUANTITY, HOLD]; KEPT[r]/REMAINING of each.
sub take {
    my ($account, $name, @wants) = @_;
    my $n = @wants;
    return join ' ', map { $_->{kept} . ($_->{repeated} ? 'r' : '') . '/' . ($_->{remaining} // 'all') } @{ $d->selectall_arrayref(
        'SELECT * FROM billing.stock_take($1, $2, $3, $4, $5, $6) ORDER BY ord', { Slice => {} }, [(1) x $n], [($name) x $n], [(id($account)) x $n],
        [map { $no{ $_->[0] } } @wants], [map { $_->[1] // 1 } @wants], [map { $_->[2] // 60 } @wants]) };
}
sub settle { my ($account, $name, $keep, $stock) = @_;
    $d->do('SELECT billing.stock_settle($1, $2, $3, $4)', undef, [$name], [id($account)], [$no{ $stock // 'projects' }], [$keep]); return }
sub level { my ($account, $stock) = @_; return $d->selectrow_array(q{SELECT coalesce((SELECT current || '+' || reserved
    FROM billing.stock_levels WHERE account_id = $1 AND stock_no = $2), 'none')}, undef, id($account), $no{ $stock // 'projects' }) }
sub count { my ($account, $stock, $current, $key) = @_;
    return decode_json($d->selectrow_array('SELECT billing.stock_count($1, $2, $3, $4)', undef, $account, $stock, $current, $key)) }
sub expire { $d->do(q{UPDATE billing.stock_holds SET expires_at = now() - interval '1 second'}); return }
sub sweep { return $d->selectrow_array('SELECT billing.stock_sweep(100)') }

# --- create and delete
account('a');
is take('a', 'c1', ['projects']), '1/2', 'G11: a place is reserved';
is level('a'), '0+1', 'before the thing is there';
settle('a', 'c1', undef);
is level('a'), '1+0', 'G11: then it is counted';
settle('a', 'c1', $_) for undef, 0;
is level('a'), '1+0', 'once, whatever is told again';
is take('a', 'c1', ['projects']), '1r/2', 'what is asked again reserves nothing';
is take('a', 'c2', ['projects', 2]), '2/0', 'two at a time';
is take('a', 'c3', ['projects']), '0/0', 'G11: what is being made counts: no more than the limit';
settle('a', 'c2', 0);
is level('a'), '1+0', 'G11: what failed gives its places back';
is take('a', 'c2', ['projects', 2]), '0r/2', 'and is not made under that name any more';
settle('a', 'never', 0);
is take('a', 'never', ['projects']), '0r/2', 'what was given back before it was asked for is never reserved';
settle('a', 'd1', -1);
settle('a', 'd1', -1);
is level('a'), '0+0', 'G11: a delete gives back, once';
settle('a', 'd2', -5);
is level('a'), '0+0', 'never below zero';
is take('a', 'c9', ['projects', 4]), '0/3', 'more than the plan gives';
account('n', 'none');
is take('n', 'c', ['projects']), '0/0', 'a plan without the stock gives none of it';
account('u', 'all');
is take('u', 'c', ['projects', 1000]), '1000/all', 'unlimited';
settle('u', 'c', undef);

# --- several, all or nothing; many in one call
account('m');
is take('m', 'both', ['projects', 2], ['seats', 1]), '2/1 1/0', 'G18: both';
is take('m', 'none', ['projects', 1], ['seats', 1]), '0/1 0/0', 'G18: or none';
is level('m'), '0+2', 'G18: a refusal reserves nothing';
my $m = id('m');
is join(' ', map { "$_->{kept}/$_->{repeated}" } @{ $d->selectall_arrayref('SELECT * FROM billing.stock_take($1, $2, $3, $4, $5, $6) ORDER BY ord', { Slice => {} },
    [3, 1, 2, 4], [qw(z x x w)], [($m) x 4], [($no{projects}) x 4], [(1) x 4], [(60) x 4]) }), '0/0 1/0 1/1 0/0', 'in one call each group sees what those before it took';
for my $wrong ([[1, 1], [qw(a a)], [$m, $m], [0, 0], [1, 1], [1, 1], 'the same stock twice'], [[1], ['a:b'], [$m], [0], [1], [1], 'a name with a colon'],
    [[1], ['a'], [$m], [77], [1], [1], 'an unknown stock'], [[1], ['a'], [$m], [0], [0], [1], 'none at all'], [[1], ['a'], [$m], [0], [1], [], 'arrays that differ'],
    [[1], ['a'], [$m], [0], [1], [undef], 'no time']) {
    my $what = pop @$wrong;
    ok !eval { $d->do('SELECT * FROM billing.stock_take($1, $2, $3, $4, $5, $6)', undef, @$wrong); 1 }, "refused: $what";
}
is level('m'), '0+3', 'and nothing happened';

# --- nobody tells
account('o');
is take('o', 'lost', ['projects', 2]), '2/1', 'reserved, and its worker dies';
is sweep(), 0, 'not before its time';
expire();
cmp_ok sweep(), '>', 0, 'then its places are free again';
is level('o'), '0+0', 'both of them';
is take('o', 'other', ['projects', 3]), '3/0', 'others may have them';
settle('o', 'other', undef);
settle('o', 'lost', undef);
settle('o', 'lost', undef);
is level('o'), '5+0', 'what was made too late is there all the same, and counted once';
is take('o', 'more', ['projects']), '0/0', 'so nothing more is made';

# --- a downgrade, and what the operator allows
settle('u', "r$_", -1) for 1;
$d->do(q{SELECT billing.account_set('u', '{"plan": "free"}', 'test')});
is level('u'), '999+0', 'a downgrade deletes nothing';
is take('u', 'c2', ['projects']), '0/0', 'but nothing new is made';
settle('u', "q$_", -1) for 1 .. 2;
is level('u'), '997+0', 'deletes are counted above the limit too';
my $shown = decode_json($d->selectrow_array(q{SELECT billing.account_set('u', '{"stock": {"projects": 1000}}', 'test')}))->{stock}{projects};
is_deeply $shown, { amount => 1000, unlimited => JSON::PP::false, origin => 'override', until => undef, current => 997, reserved => 0, available => 3 }, 'an override of the account';
is take('u', 'c3', ['projects', 3]), '3/0', 'counts at once';
is take('u', 'c4', ['projects']), '0/0', 'and no further';
$d->do(q{UPDATE billing.account_stocks SET expires_at = now() - interval '1 second'});
is take('u', 'c5', ['projects']), '0/0', 'until it is over';
is decode_json($d->selectrow_array(q{SELECT billing.account_set('u', '{"stock": {"projects": "unlimited"}}', 'test')}))->{stock}{projects}{amount}, undef, 'unlimited for one';
is take('u', 'c6', ['projects']), '1/all', 'so it is';
is $d->selectrow_array(q{SELECT count(*) FROM billing.audit_log WHERE action = 'stock.override'}), 3, 'S8: overrides are audited';
ok !eval { $d->do(q{SELECT billing.account_set('u', '{"stock": {"gold": 1}}', 'test')}); 1 }, 'an unknown stock';
like $@, qr/unknown stock "gold"/, 'is named';

# --- the application states what there is
is_deeply count('a', 'projects', 2), { success => JSON::PP::true, current => 2, reserved => 0, limit => 3, remaining => 1 }, 'C15: stated';
is_deeply count('a', 'projects', undef), { success => JSON::PP::true, current => 2, reserved => 0, limit => 3, remaining => 1 }, 'C15: told';
is_deeply count('a', 'projects', 7, 'k'), { success => JSON::PP::true, current => 7, reserved => 0, limit => 3, remaining => 0 }, 'more than allowed may be there';
is count('a', 'projects', 1)->{current}, 1, 'and be removed';
is_deeply count('a', 'projects', 7, 'k'), { success => JSON::PP::true, current => 1, reserved => 0, limit => 3, remaining => 2, repeated => JSON::PP::true }, 'G17: once for a key';
is count('a', 'seats', undef)->{current}, 0, 'nothing yet is none';
is count(@{$_}[0 .. 3])->{code}, $_->[4], "refused: $_->[4]" for ['nobody', 'projects', 1, undef, 'UNKNOWN_ACCOUNT'], ['a', 'gold', 1, undef, 'UNKNOWN_STOCK'],
    ['a', 'projects', -1, undef, 'INVALID_QUANTITY'], ['a', 'projects', 1, 'a:b', 'INVALID_KEY'];
is level('a'), '1+0', 'which changes nothing';

is_deeply [stock_astray($d)], [], 'every change is in the ledger, every reserved place in its hold';
$d->do(q{UPDATE billing.stock_levels SET current = current + 1 WHERE account_id = $1}, undef, id('a'));
isnt scalar(() = stock_astray($d)), 0, 'which would show';
ok !eval { $d->do('UPDATE billing.stock_ledger SET quantity = 9'); 1 }, 'the ledger is append-only';
done_testing;
