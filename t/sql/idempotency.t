# Promise (G17): a key of a client's own is claimed by one request at a time; once that is charged, nobody is charged for the key again in
# its window; when it came to nothing, or its worker died before anything was kept, the key is free.
use strict;
use warnings;
use Billing::Conservation qw(credits_astray);
use Billing::Database;
use Test::More;

my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free', quotas => {}, credits => { a => {}, b => {} }, stock => { project => {} }, plans => { free => { stock => { project => 9 }, credits => { a => 100, b => 100 } } } });
$db->psql(q{SELECT billing.ensure_accounts('{x,y}')});
my $d = $db->dbi;
my %id = map { @$_ } @{ $d->selectall_arrayref('SELECT external_id, id FROM billing.accounts') };
my ($HOLD, $WINDOW) = (600, 86400);

sub begin { my ($key, $name, %o) = @_; return begin_on($d, $key, $name, %o) }
sub begin_on {
    my ($on, $key, $name, %o) = @_;
    return scalar $on->selectrow_array(q{SELECT billing.idempotency_begin($1, sha256($2::text::bytea), sha256($3::text::bytea), $4, $5, $6)}, undef,
        $id{ $o{account} // 'x' }, $key, $o{request} // 'the same', $name, $o{hold} // $HOLD, $o{window} // $WINDOW);
}
sub end { my ($keep, @names) = @_; end_on($d, $keep, @names); return }
sub end_on { my ($on, $keep, @names) = @_; return $on->do('SELECT billing.idempotency_end($1, $2, $3, $4)', undef, \@names, [($id{x}) x @names], [(0) x @names], [($keep) x @names]) }
sub take { my ($name, @types) = @_; return $d->selectcol_arrayref('SELECT kept FROM billing.credits_take($1, $2, $3, $4, $5, $6, $7)', undef,
    [(1) x @types], [($name) x @types], [($id{x}) x @types], \@types, [(5) x @types], [($HOLD) x @types], [(undef) x @types]) }
sub settle { my ($name, $keep, @types) = @_; $d->do('SELECT count(*) FROM billing.credits_settle($1, $2, $3, $4)', undef,
    [($name) x @types], [($id{x}) x @types], \@types, [($keep) x @types]); return }
sub age { my ($seconds) = @_; $d->do("UPDATE billing.$_ SET expires_at = expires_at - make_interval(secs => \$1)", undef, $seconds) for qw(idempotency_keys credit_holds stock_holds); return }
sub keys_left { return scalar $d->selectrow_array('SELECT count(*) FROM billing.idempotency_keys') }

# --- one at a time, once
is begin('k1', 'n1'), 'new', 'G17: the first claims it';
is begin('k1', 'n1'), 'new', 'G17: whose answer was lost asks again';
is begin('k1', 'n2'), 'busy', 'G17: another one waits for the first';
is begin('k1', 'n2', request => 'another'), 'other', 'G17: another request under the same key';
is begin('k1', 'n3', account => 'y'), 'new', 'G17: the same key of another account is another key';
end(undef, 'n1');
is begin('k1', 'n4'), 'done', 'G17: once charged the same request is let through';
is begin('k1', 'n4', request => 'another'), 'other', 'and no other one';
end(0, 'n1');
is begin('k1', 'n4'), 'done', 'what is charged stays so, whatever is told late';
age($WINDOW + 1);
is begin('k1', 'n5'), 'new', 'G17: after its window a key is new';
end(undef, 'n1');
is begin('k1', 'n6'), 'busy', 'what an earlier request is told does not concern it';

# --- given up
is begin('k2', 'm1'), 'new';
end(0, 'm1');
is begin('k2', 'm2', request => 'another'), 'new', 'G17: a request that came to nothing frees its key, for any request';
end(undef, 'm1', 'm2');
is begin('k2', 'm3', request => 'another'), 'done', 'two told at once';

# --- a worker dies
is begin('k3', 'd1'), 'new';
is_deeply take('d1', 0), [5];
age($HOLD + 1);
is begin('k3', 'd2'), 'busy', 'G17: as long as nobody has swept its credits they may have been spent';
$d->do('SELECT billing.credits_sweep(100)');
is begin('k3', 'd2'), 'new', 'G17: they have come back: the key is free';
is_deeply take('d2', 0, 1), [5, 5];
settle('d2', undef, 0, 1);
age($HOLD + 1);
is begin('k3', 'd3'), 'done', 'G17: they were kept, and only the word on the key was lost: charged';
age($HOLD + 1);
is begin('k3', 'd4'), 'done', 'for its window';
is begin('k4', 'e1'), 'new';
is_deeply take('e1', 0, 1), [5, 5];
settle('e1', 0, 0);
settle('e1', 2, 1);
age($HOLD + 1);
is begin('k4', 'e2'), 'done', 'G17: a part of it was kept';
is begin('k5', 'f1'), 'new';
is_deeply take('f1', 0), [5];
settle('f1', 0, 0);
age($HOLD + 1);
is begin('k5', 'f2'), 'new', 'nothing was kept';
for my $case (['made', 'stock_take', 'busy'], ['removed', undef, 'done']) {
    my ($what, $take, $then) = @$case;
    is begin("stock $what", "s-$what"), 'new';
    $d->do(q{SELECT count(*) FROM billing.stock_take('{1}', $1, $2, '{0}', '{1}', $3)}, undef, ["s-$what"], [$id{x}], [$HOLD]) if $take;
    $d->do(q{SELECT billing.stock_settle($1, $2, '{0}', '{-1}')}, undef, ["s-$what"], [$id{x}]) if !$take;
    age($HOLD + 1);
    is begin("stock $what", "t-$what"), $then, "G17: a thing that was $what";
    next if !$take;
    $d->do(q{SELECT billing.stock_settle($1, $2, '{0}', '{NULL}')}, undef, ["s-$what"], [$id{x}]);
    is begin("stock $what", "t-$what"), 'done', 'G17: and is there';
}
is begin('k6', 'g1'), 'new';
age($HOLD + 1);
is begin('k6', 'g2', request => 'another'), 'new', 'nothing was taken';

# --- forgotten
is $d->selectrow_array('SELECT billing.idempotency_purge(1000)'), 1, 'G17: forgotten is the one that nobody has decided for a window';
my $before = keys_left();
age($WINDOW + $HOLD);
is $d->selectrow_array('SELECT billing.idempotency_purge(1)'), 1, 'so many at a time';
$d->do('SELECT billing.idempotency_purge(1000)');
cmp_ok $before, '>', 4;
is keys_left(), 0, 'G17: what is over is forgotten';

# --- what is no key
for ([q{'\x00'}, q{sha256('')}, q{'n'}, 1, 1, '23514'], [q{sha256('')}, q{sha256('')}, q{'a:b'}, 1, 1, '23514'], [q{sha256('')}, q{sha256('')}, q{'n'}, 1, 0, '23514']) {
    my ($key, $request, $name, $hold, $window, $state) = @$_;
    ok !eval { $d->selectrow_array("SELECT billing.idempotency_begin($id{x}, $key, $request, $name, $hold, $window)"); 1 }, 'refused';
    is $d->state, $state;
}

# --- many at once: of each key one is new at a time, and each is charged once
my ($hosts, $keys) = (8, 20);
my @children = map {
    my $host = $_;
    pipe my $from, my $to or die;
    my $pid = fork // die;
    if (!$pid) {
        my $mine = $db->dbi;
        my ($charged, %open) = (0, map { $_ => 1 } 1 .. $keys);
        my $try = 0;
        srand $host;
        while (%open) {
            for my $key (keys %open) {
                my $name = "h$host-" . ++$try;
                my $told = $db->until_unlocked($mine, sub { begin_on($mine, "many $key", $name) }) // die $mine->errstr;
                delete $open{$key} if $told eq 'done';
                next if $told ne 'new';
                my $keep = rand() < 0.5 ? undef : 0;
                $charged++ if !defined $keep;
                $db->until_unlocked($mine, sub { end_on($mine, $keep, $name) }) // die $mine->errstr;
            }
        }
        print {$to} "$charged\n";
        close $to;
        require POSIX;
        POSIX::_exit(0);
    }
    close $to;
    [$pid, $from];
} 1 .. $hosts;
my $charged = 0;
for (@children) { my $said = readline $_->[1]; waitpid $_->[0], 0; is $?, 0; $charged += $said // 0 }
is $charged, $keys, "G17: $hosts hosts, $keys keys: each is charged once";

is_deeply [credits_astray($d)], [], 'K2: every credit is accounted for';
done_testing;
