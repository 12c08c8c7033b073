# Promise (test library): a private server stops, crashes, pauses and comes back as told, and leaves no process behind.
use strict;
use warnings;
use Test::More;
use Billing::Database;
use File::Temp qw(tempdir);

my $db = Billing::Database->new(fsync => 1, tcp => 1)->migrate;
is $db->psql('SHOW fsync'), 'on', 'fsync as asked';
is(Billing::Database->new->psql('SHOW fsync'), 'off', 'off by default');
ok $db->dbi(tcp => 1)->ping, 'answers on loopback';
is $db->psql('SHOW listen_addresses'), '127.0.0.1', 'and nowhere else';
is(Billing::Database->new->psql('SHOW listen_addresses'), '', 'without tcp only on its socket');
$db->psql('CREATE TABLE kept AS SELECT 1 AS x');

my $held = $db->dbi;
my $backend = $held->selectrow_array('SELECT pg_backend_pid()');
$db->kill9;
ok !-e "/proc/$backend" || `cat /proc/$backend/stat` =~ /\) Z /, 'kill9 takes the backends too';
ok !eval { $held->do('SELECT 1'); 1 }, 'clients see the crash';
ok !eval { $db->dbi; 1 }, 'nobody answers';
$db->start;
is $db->psql('SELECT x FROM kept'), 1, 'what was committed survives';
$db->stop('immediate')->start;
is $db->psql('SELECT x FROM kept'), 1, 'an immediate stop';
$db->stop->start;
is $db->psql('SELECT x FROM kept'), 1, 'a clean one';

my $d = $db->dbi(tcp => 1);
$db->pause;
$d->do('SELECT 1', { pg_async => 1 }) or die;
select undef, undef, undef, 0.05;
ok !$d->pg_ready, 'a paused server answers nothing';
$db->resume;
ok $d->pg_result, 'and goes on where it was';
$db->pause->stop;
pass 'a paused server can be stopped';

# A test that is killed takes its server along.
my $place = tempdir('billing-pg-XXXXXX', TMPDIR => 1, CLEANUP => 1);    # the killed one cannot clean up
pipe my $from, my $to;
my $pid = fork // die;
if (!$pid) {
    my $own = Billing::Database->new(dir => $place);
    print {$to} $own->pid, "\n";
    close $to;
    select undef, undef, undef, 60;
    POSIX::_exit(0);
}
close $to;
chomp(my $server = readline $from);
kill 'KILL', $pid;
waitpid $pid, 0;
my $until = time + 20;
while (-e "/proc/$server" && `cat /proc/$server/stat 2>/dev/null` !~ /\) Z /) {
    last if time > $until;
    select undef, undef, undef, 0.02;
}
ok time <= $until, 'kill -9 of the test ends its server';
done_testing;
