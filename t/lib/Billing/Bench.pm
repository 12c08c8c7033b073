# Where the gate's cost is measured (script/bench, t/bench): one host before one application, with locations whose names have equal
# lengths and which differ in nothing but their directives; the account is in a header, and all accounts are known to Redis. Each location has
# accounts of its own, as a second quota of an account would cost more than its first.
#
# instructions() counts what callgrind sees a worker execute, which no noise touches. One host is started under callgrind, everything
# is warmed up, and each location's requests stand between two marks at which callgrind writes a part of its profile.
package Billing::Bench;
use v5.36;
use Billing::Database ();
use Billing::Nginx ();
use Billing::Process qw(new_directory slurp wait_for);
use Billing::Redis ();
use Billing::Test ();
use JSON::PP ();
use List::Util qw(max min);
use Time::HiRes ();

my $pro = {name => 'Pro', rank => 1, quotas => {requests => 1_000_000_000, unlimited => undef}};
my $catalog = {
    default_plan => 'free',
    features => ['export', 'support'],
    quotas => {requests => {period => 'month'}, unlimited => {period => 'month'}},
    plans => {
        free => {name => 'Free', rank => 0, free => JSON::PP::true, features => [], quotas => {requests => 0}},
        pro => {$pro->%*, features => ['export'], price => {month => {id => 'price_bench', amount => 100, currency => 'usd'}}},
        max => {$pro->%*, name => 'Max', rank => 2, features => ['export', 'support'],
            price => {month => {id => 'price_bench_max', amount => 200, currency => 'usd'}}},
    },
};

my $conf = <<'END';
%%GLOBALS%%
events { worker_connections 1024; }
http {
    %%HTTP_GLOBALS%%
    %%BILLING%%
    limit_req_zone $http_x_account zone=limits:%%LIMITS%% rate=100000r/s;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    keepalive_requests 100000000;
    upstream app { server unix:%%APP%%; keepalive 64; keepalive_requests 100000000; }
    server {
        listen 127.0.0.1:%%PORT%% reuseport;
        location = /pid { return 200 $pid; }
        location = /metrics { billing_metrics; }
        location = /mark { try_files /nowhere @mark; }
        location @mark { return 200; }
        %%LOCATIONS%%
    }
}
END

my $app_conf = <<'END';
%%GLOBALS%%
events { worker_connections 1024; }
http {
    %%HTTP_GLOBALS%%
    keepalive_requests 100000000;
    server { listen unix:%%PREFIX%%/app.sock; listen 127.0.0.1:%%PORT%%; location / { return 200 "%%BODY%%"; } }
}
END

# Nothing but /mark calls this function of nginx.
my @callgrind = (qw(valgrind -q --tool=callgrind --trace-children=yes --vgdb=no --dump-before=ngx_http_named_location),
    '--callgrind-out-file=%%PREFIX%%/reports/callgrind.%p');

# The location's directives for a request that the gate judges.
sub gate(@rules) {
    return join ' ', 'billing on; billing_account $http_x_account; billing_unknown_account deny;', map { "billing_$_;" } @rules;
}

# variants => [{name => part of the path, directives => '...', status => of its answers, 200 by default}], accounts => how many,
# wrapper => [command before each nginx].
sub new($class, %option) {
    my $self = bless {wrapper => [], %option, directory => new_directory(), db => Billing::Database->new, redis => Billing::Redis->new},
        $class;
    $self->{catalog_file} = Billing::Test::catalog_file($self, $catalog);
    for my $command (['migrate', '--dir', Billing::Process::root() . '/migrations'], ['catalog', 'apply', $self->{catalog_file}]) {
        my $result = Billing::Test::run_command(@$command, '--dsn', $self->{db}->dsn);
        die "ngx-billing @$command: $result->{err}$result->{out}" if $result->{code};
    }
    $self->add_accounts($_->{name}, 1, $self->{accounts}) for grep { $_->{directives} =~ /\bbilling on\b/ } $self->{variants}->@*;
    $self->{app} = Billing::Nginx->new(name => 'application', conf => $app_conf, workers => 1, vars => {BODY => 'x' x 1000});
    $self->publish_accounts;
    return $self;
}

sub directory($self) { $self->{directory} }
sub redis($self) { $self->{redis} }
sub application($self) { $self->{app}->directory . '/app.sock' }

# NAME-$from to NAME-$to come into being, in one transaction.
sub add_accounts($self, $name, $from, $to) {
    $self->{db}->dbi->do("INSERT INTO billing.accounts (external_id, plan_no)
        SELECT ? || '-' || n, (SELECT plan_no FROM billing.plans WHERE plan_key = 'pro') FROM generate_series(?::int, ?::int) n",
        undef, $name, $from, $to);
    return;
}

# As after a long time without changes: nothing is left to be told.
sub forget_changes($self) {
    $self->{db}->dbi->do('TRUNCATE billing.snapshot_dirty');
    return;
}

# Units that PostgreSQL has been told of.
sub used($self) {
    $self->{dbh} //= $self->{db}->dbi;
    return ($self->{dbh}->selectrow_array('SELECT coalesce(sum(used), 0) FROM billing.quota_periods'))[0];
}

# From here on PostgreSQL gets what the others leave.
sub yield_database($self) {
    setpriority 0, $_, 19 for $self->{db}->pid, Billing::Process::descendants($self->{db}->pid);
    return;
}

# application => the socket of another one, zone => size of ours, limits => size of limit_req's, before => [command].
sub host($self, $workers, %option) {
    my $locations = join "\n", map {
        my $answer = $_->{directives} =~ /\breturn\b/ ? '' : 'proxy_pass http://app;';
        "location /$_->{name}/ { $_->{directives} $answer }";
    } $self->{variants}->@*;
    return Billing::Nginx->new(name => 'gate', conf => $conf, workers => $workers, log_level => 'warn',
        wrapper => [$self->{wrapper}->@*, ($option{before} // [])->@*], vars => {
            LIMITS => $option{limits} // '16m',
            BILLING => join("\n", 'billing_zone main ' . ($option{zone} // '32m') . ';', 'billing_postgres "' . $self->{db}->dsn . '";',
                'billing_redis ' . $self->{redis}->address . ';', "billing_catalog $self->{catalog_file};"),
            APP => $option{application} // $self->application,
            LOCATIONS => $locations,
        });
}

# The first host tells Redis of all the new accounts, before anything is measured.
sub publish_accounts($self) {
    my $host = $self->host(1);
    my $dbh = $self->{db}->dbi;
    wait_for(sub { !($dbh->selectrow_array('SELECT count(*) FROM billing.snapshot_dirty'))[0] }, 120, 'all accounts are published');
    $host->quit_quietly;
    return;
}

sub finish($self) {
    $self->{app}->quit_quietly;
    return;
}

# --- instructions ---

# By variant: the instructions of one warm request, in the least of $rounds interleaved rounds of a request for each of $some accounts:
# what disturbs a round only adds to it. A host must hold more tokens of an account than there are rounds. Two counts: all that the
# worker executes, and what it executes in the phases of a request and at its end. The first holds how many times the worker woke up for
# it, which the machine's pace changes by some instructions; the second repeats exactly, and has all of a handler that only decides.
sub instructions($self, $some, $rounds) {
    my ($host, $worker) = $self->count($some, $rounds);
    my @parts = (2 * $self->{variants}->@*) x 3;    # those of the warm-up
    return map {
        my $count = $_;
        my $part = shift @parts;
        my %least;
        for (1 .. $rounds) {
            for my $name ((map { $_->{name} } $self->{variants}->@*), 'idle') {
                my $all = $count->($host->directory . "/reports/callgrind.$worker." . ++$part);
                $least{$name} = min($all, $least{$name} // $all);
            }
        }
        my $idle = delete $least{idle};
        +{map { $_ => ($least{$_} - $idle) / $some } keys %least};
    } \&total_of, \&phases_of, \&header_of;
}

# Two workers run, and the one that does the host's background work is not measured: mostly the one that started first, and its
# profile tells. Each round ends with a pause as long as its longest part: what a worker does anyhow, and the mark.
sub count($self, $some, $rounds) {
    my @variants = $self->{variants}->@*;
    for (1 .. 5) {
        my $host = $self->host(2, before => \@callgrind);
        my $worker = ($host->workers)[-1];
        my $socket = connection_to($host, $worker);
        for my $variant (@variants) {
            wait_for(sub { eval { exchange($socket, $variant, 1) } }, 60, "/$variant->{name}/x answers");
            drive($socket, $variant, $some) for 1 .. 2;
        }
        for (1 .. $rounds) {
            my $longest = max(map { drive($socket, $_, $some) } @variants);
            select undef, undef, undef, $longest;
            mark($socket);
        }
        close $socket;
        $host->quit_quietly;
        my @background = grep { slurp($_) =~ /\bPublisher::run/ } glob $host->directory . '/reports/callgrind.*';
        @background or die "no worker's profile has Publisher::run: has the background work another name?\n";
        return ($host, $worker) if !grep { /\.$worker(?:\.|$)/ } @background;
    }
    die "the measured worker did background work five times\n";
}

# One request for each account, one after the other on one connection, then a mark. Returns the seconds.
sub drive($socket, $variant, $some) {
    my $begun = Time::HiRes::time();
    exchange($socket, $variant, $_) for 1 .. $some;
    my $took = Time::HiRes::time() - $begun;
    mark($socket);
    return $took;
}

sub mark($socket) { request($socket, '/mark', 'nobody') }

sub phases_of($part) { return calls_of($part, qr/^ngx_http_(?:core_run_phases|free_request)$/) }
sub header_of($part) { return calls_of($part, qr/^ngx_http_send_header$/) }

# A call's cost, with all that it calls, is the last number of the line behind it.
sub calls_of($part, $which) {
    my (%name, $called);
    my $sum = 0;
    my @lines = split /\n/, slurp($part);
    while (defined(my $line = shift @lines)) {
        if (my ($calls, $id, $name) = $line =~ /^(c?)fn=\((\d+)\)(?: (.*))?$/) {
            $name{$id} = $name if defined $name;
            $called = $id if $calls;
        } elsif ($line =~ /^calls=/) {
            my ($cost) = (shift @lines) =~ /(\d+)$/;
            $sum += $cost if $name{$called} =~ $which;
        }
    }
    return $sum || die "callgrind has not seen $which in $part\n";
}

sub total_of($part) {
    slurp($part) =~ /^(?:summary|totals): (\d+)/m or die "callgrind wrote nothing into $part\n";
    return $1;
}

sub median(@values) {
    my @sorted = sort { $a <=> $b } @values;
    return ($sorted[$#sorted / 2] + $sorted[@sorted / 2]) / 2;
}

# A connection that this worker has accepted.
sub connection_to($host, $worker) {
    my @others;
    for (1 .. 200) {
        my $socket = $host->connect;
        return $socket if request($socket, '/pid', 'nobody') =~ /\r\n\r\n$worker$/;
        push @others, $socket;
    }
    die "worker $worker accepted no connection\n";
}

sub exchange($socket, $variant, $number) {
    my $answer = request($socket, "/$variant->{name}/x", "$variant->{name}-$number");
    my $status = $variant->{status} // 200;
    $answer =~ m{^HTTP/1.1 $status } or die "$variant->{name}-$number: not $status but\n$answer\n";
    return $answer;
}

# Fields of an ordinary client. With them a bare request ends at the beginning of a block of its pool; without, its blocks are full
# to the last 200 bytes, and whoever needs more pays for a whole block.
my $client = join "\r\n", 'User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0', 'Accept: application/json',
    'Accept-Language: en-US,en;q=0.5', 'Accept-Encoding: gzip, deflate, br';

sub request_text($path, $name) { "GET $path HTTP/1.1\r\nHost: localhost\r\n$client\r\nX-Account: $name\r\n\r\n" }

sub request($socket, $path, $name) {
    print $socket request_text($path, $name);
    my ($answer, $length) = ('', undef);
    until (defined $length && length $answer >= $length) {
        sysread $socket, $answer, 65536, length $answer or die "$path: the connection was closed\n$answer\n";
        $length //= $+[0] + $1 if $answer =~ /^Content-Length: (\d+)\r\n(?:[^\r]+\r\n)*\r\n/mi;
    }
    return $answer;
}

1;
