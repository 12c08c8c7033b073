# Promise (Q1): issued never passes the cap and no token is granted twice, with many hosts asking, reporting and returning at
# once, in any order of rows; and nobody deadlocks.
use strict;
use warnings;
use Test::More;
use Billing::Database;

my ($hosts, $accounts, $rounds) = (16, 4, 60);
my $db = Billing::Database->new->migrate;
$db->apply_catalog({ default_plan => 'free', quotas => { a => { period => 'lifetime' }, b => { period => 'lifetime' } },
    plans => { free => { quotas => { a => 2000, b => 300 } } } });
$db->psql("SELECT billing.ensure_accounts(ARRAY(SELECT 'x' || g FROM generate_series(1, $accounts) g))");

pipe my $gate, my $open;
my @children;
for my $host (1 .. $hosts) {
    pipe my $from, my $to;
    my $pid = fork // die;
    if (!$pid) {
        close $open;
        srand $host;
        my $d = $db->dbi;
        readline $gate;
        my (%granted, %returned, %spent);
        my $seq = 0;
        my $uuid = sprintf '00000000-0000-0000-0000-%012d', $host;
        my $error = '';
        for my $round (1 .. $rounds) {
            my @ask = map { [1 + int rand 3, 1 + int rand $accounts, int rand 2, 1 + int rand 9] } 1 .. 1 + int rand 6;
            my @c = map { my $i = $_; [map { $_->[$i] } @ask] } 0 .. 3;
            my $zero = [(0) x @ask];
            my $got = $db->until_unlocked($d, sub { $d->selectall_arrayref('SELECT * FROM billing.quota_fund($1, $2, $3, $4, $5, $6, $7) ORDER BY ord',
                { Slice => {} }, $c[0], $c[1], $c[2], $zero, $c[3], [map { $_ + 40 } @{ $c[3] }], $zero) });
            $error .= $@ if !$got;
            my %group;
            for my $i (0 .. $#{ $got || [] }) {
                my ($r, $g) = ($got->[$i], $ask[$i]);
                $granted{"$g->[1]/$g->[2]"} += $r->{granted};
                $error .= "cap passed: $r->{issued} > $r->{cap}\n" if $r->{issued} > $r->{cap};
                $error .= "less than the need\n" if $r->{granted} && $r->{granted} < $g->[3];
                $group{ $g->[0] }{ $r->{granted} ? 'yes' : 'no' } = 1;
            }
            $error .= "half a group\n" if grep { keys %$_ > 1 } values %group;
            next if $round % 3;
            my @rows;    # report a part as spent, return a part
            for my $key (keys %granted) {
                my $left = $granted{$key} - ($spent{$key} // 0) - ($returned{$key} // 0);
                my $s = int rand($left + 1);
                my $b = int rand($left - $s + 1);
                $spent{$key} += $s;
                $returned{$key} += $b;
                push @rows, [split('/', $key), 0, $s, $b];
            }
            my @f = map { my $i = $_; [map { $_->[$i] } @rows] } 0 .. 4;
            $seq++;
            my $said = $db->until_unlocked($d, sub { $d->selectrow_array('SELECT billing.usage_flush($1, $2, $3, $4, $5, $6, $7, $8)', undef,
                $uuid, "host$host", $seq, @f) }) // '';
            $error .= "flush: $said $@\n" if $said ne 'ok';
        }
        print {$to} "error $error\n" if $error;
        print {$to} "$_ $granted{$_} " . ($spent{$_} // 0) . ' ' . ($returned{$_} // 0) . "\n" for keys %granted;
        close $to;
        POSIX::_exit(0);
    }
    close $to;
    push @children, [$pid, $from];
}
close $gate;
close $open;

my (%granted, %spent, %returned, $errors);
$errors = '';
for (@children) {
    my ($pid, $from) = @$_;
    while (my $line = <$from>) {
        if ($line =~ m{^(\d+/\d+) (\d+) (\d+) (\d+)$}) { $granted{$1} += $2; $spent{$1} += $3; $returned{$1} += $4 }
        else { $errors .= $line }
    }
    waitpid $pid, 0;
}
is $errors, '', "$hosts hosts, $rounds rounds: no error, no deadlock, no cap passed, no half group";
my $rows = $db->dbi->selectall_arrayref('SELECT account_id, limit_no, issued, used, cap FROM billing.quota_periods');
is @$rows, $accounts * 2, 'one row for each account, limit and period';
for (@$rows) {
    my ($account, $limit, $issued, $used, $cap) = @$_;
    my $key = "$account/$limit";
    is $issued, $granted{$key} - $returned{$key}, "$key: issued is what hosts hold or spent";
    is $used, $spent{$key}, "$key: used is what they reported";
    ok $issued <= $cap, "$key: within the cap";
}
ok((grep { $_->[2] > $_->[4] * 0.9 } @$rows) > 0, 'the caps were really fought for');

# A cap that is lowered while a fund waits for its row: the grant must not use the old one.
my ($d, $holder) = ($db->dbi, $db->dbi);
$d->do(q{SELECT billing.ensure_accounts('{late}')});
my ($late) = $d->selectrow_array(q{SELECT id FROM billing.accounts WHERE external_id = 'late'});
my $ask = "SELECT granted FROM billing.quota_fund('{1}', '{$late}', '{0}', '{0}', '{5}', '{5}', '{0}')";
is $db->psql($ask), 5, 'a grant under the old cap';
$holder->begin_work;
$holder->do("SELECT 1 FROM billing.quota_periods WHERE account_id = $late FOR UPDATE");
pipe my $from, my $to;
my $pid = fork // die;
if (!$pid) {
    print {$to} $db->psql($ask), "\n";
    close $to;
    POSIX::_exit(0);
}
close $to;
my $until = time + 20;
until ($db->psql(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'})) {
    die 'the fund never came to its lock' if time > $until;
    select undef, undef, undef, 0.01;
}
$d->do("INSERT INTO billing.account_limits (account_id, limit_no, amount) VALUES ($late, 0, 7)");
$holder->commit;
chomp(my $granted = readline $from);
waitpid $pid, 0;
is $granted, 0, 'a cap lowered while the fund waited is the one that counts';
done_testing;
