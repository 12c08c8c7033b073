# A random run of the whole product, and whether what clients were told, what PostgreSQL holds and what hosts report agree afterwards:
# two hosts, six clients, changes of plans, limits and credits, purchases, and faults, all by one seed (Billing::ModelPlan). What must
# hold is in Billing::ModelCheck, in which there is nothing of the product's own rules.
#
#   my $run = Billing::Model->new(seed => 7, without => [3, 5]);   # leaving out the 3rd and the 5th operation
#   say for $run->play;                                            # what is wrong; nothing when all is well
package Billing::Model;
use v5.36;
use Billing::Metrics ();
use Billing::ModelCheck ();
use Billing::ModelClient ();
use Billing::ModelPlan qw(%plans %quotas @accounts catalog locations requests_of operations_of);
use Billing::ModelProxy ();
use Billing::Process qw(wait_for patience new_directory);
use Billing::Test qw();
use JSON::PP ();
use Time::HiRes qw(time);

my $clients = 6;
my $attempts = 150;    # of each

sub new($class, %option) {
    my $self = bless {%option, faults => [], troubles => [], cap => {}, purchases => 0, jobs => []}, $class;
    my $number = 0;
    my %without = map { $_ => 1 } @{$option{without} // []};
    $self->{operations} = [grep { !$without{$_->[0]} } map { [++$number, @$_] } operations_of($self->{seed}, $clients * $attempts)];
    return $self;
}

# The operations as lines, numbered as `without` takes them.
sub lines($self) { return map { my ($number, $at, @what) = @$_; sprintf '%2d. after %d: %s', $number, $at, join ' ', @what } $self->{operations}->@* }
sub world($self) { $self->{world} }

sub play($self) {
    $self->begin;
    my $directory = new_directory();
    my @addresses = map { $_->address } $self->{world}->hosts;
    my @clients = map { Billing::ModelClient->start("$directory/$_", \@addresses, requests_of($self->{seed}, $_, $attempts)) } 1 .. $clients;
    $self->{progress} = sub { my $all = 0; $all += $_->done for @clients; return $all };
    for my $operation ($self->{operations}->@*) {
        my ($number, $at, $what, @with) = @$operation;
        wait_for(sub { $self->{progress}->() >= $at }, 120, "$at attempts");
        my $method = "do_$what";
        $self->$method(@with);
    }
    wait_for(sub { $self->{progress}->() >= $clients * $attempts }, 120, 'all attempts');
    $_->wait_end for @clients;
    $self->{attempts} = [map { $_->told } @clients];
    my $check = Billing::ModelCheck->new($self);
    $self->rest($check);
    return $check->problems;
}

sub begin($self) {
    my $world = $self->{world} = Billing::Test::world(hosts => 2, start => 0, stripe => {catalog => catalog()}, catalog => catalog(), locations => locations());
    for my $host ($world->hosts) {
        push $self->{proxies}->@*, my $proxy = Billing::ModelProxy->new($world->db->{socket} . '/.s.PGSQL.' . $world->db->port);
        $host->write_config($host->{conf}, DSN => 'host=127.0.0.1 port=' . $proxy->port . ' user=postgres dbname=billing');
        $host->start;
    }
    for my $account (@accounts) {
        $world->sql('SELECT billing.ensure_accounts(ARRAY[?])', $account);
        $self->note_caps($account, $plans{free}->%*);
    }
    return;
}

# The largest cap that was ever in force, and the present one.
sub note_caps($self, $account, %cap) {
    for my $quota (grep { exists $quotas{$_} } keys %cap) {
        my $old = $self->{cap}{$account}{$quota} // 0;
        $self->{cap}{$account}{$quota} = $cap{$quota} if $cap{$quota} > $old;
    }
    return;
}

# --- what operators and customers do

# A change is made by whoever makes it until it is: connections may still be cut.
sub change($self, $work) { return wait_for(sub { eval { $work->() } }, 20, 'a change is made') }
sub sql($self, $statement, @values) {
    my $done = $self->change(sub { [$self->{world}->sql($statement, @values)] });
    return @$done;
}

sub do_plan($self, $account, $plan) {
    $self->note_caps($account, $plans{$plan}->%*);
    $self->change(sub { $self->{world}->must('account', 'set', $account, '--plan', $plan); 1 });
}
sub do_limit($self, $account, $quota, $cap) {
    $self->note_caps($account, $quota => $cap);
    $self->change(sub { $self->{world}->must('account', 'set', $account, '--limit', "$quota=$cap"); 1 });
}
sub do_unlimit($self, $account, $quota) { $self->change(sub { $self->{world}->must('account', 'set', $account, '--limit', "$quota=default"); 1 }) }
sub do_grant($self, $account, $type, $units) {
    $self->sql(q{SELECT billing.grant_credits(?, ?, ?, ?, 'model')}, $account, $type, $units, 'g' . ++$self->{keys});
}
sub do_adjust($self, $account, $type, $delta) {
    $self->sql(q{SELECT billing.adjust_credits(?, ?, ?, ?, 'model')}, $account, $type, $delta || 1, 'a' . ++$self->{keys});
}

# An application's own taking, and what becomes of it; each call twice, as a client does that has heard nothing.
sub do_job($self, $account, $type, $units, $end) {
    my $key = 'job-' . ++$self->{keys};
    my ($took) = map { JSON::PP->new->decode((values %$_)[0]) } $self->sql(q{SELECT billing.deduct_credits(?, ?, ?, ?, '60 s')}, $account, $type, $units, $key);
    return if !$took->{success};
    $self->sql(q{SELECT billing.deduct_credits(?, ?, ?, ?, '60 s')}, $account, $type, $units, $key);
    my $call = {commit => q{SELECT billing.commit_credits(?, ?, ?)}, refund => q{SELECT billing.refund_credits(?, ?, ?)}}->{$end};
    $self->sql($call, $account, $type, $key) for $call ? (1, 2) : ();
    push $self->{jobs}->@*, {account => $account, type => $type, units => $end eq 'commit' ? $units : 0, key => $key};
    return;
}

sub do_buy($self, $account) {
    my $world = $self->{world};
    my $session;
    my $bought = eval {
        wait_for(sub {
            my $answer = $world->host($self->{purchases} % 2)->post('/billing/checkout', '{"plan":"logo_10"}',
                Authorization => "Bearer test:$account", 'Content-Type' => 'application/json');
            $answer->status == 200 && (($session) = grep { ($_->{url} // '') eq $answer->json->{url} } $world->stripe->all('checkout.session'));
        }, 20, 'a checkout');
    };
    return if !$bought;
    $world->stripe->pay($session->{id});
    $self->{purchases}++;
    return;
}

# --- faults

sub fault($self, $kind, $host = undef) {
    push $self->{faults}->@*, {kind => $kind, host => $host, at => time, since => $self->reported_before(time)};
    return;
}

# What hosts had told by then was told at least until this time: they report each second, and when PostgreSQL is back at once.
sub reported_before($self, $now) {
    my $since = $now - 3 * patience();
    for my $trouble (reverse $self->{troubles}->@*) {
        $since = $trouble->{begin} - 3 * patience() if $trouble->{end} + 6 * patience() >= $since && $trouble->{begin} - 3 * patience() < $since;
    }
    return $since;
}
sub trouble($self, $work) {
    my $trouble = {begin => time};
    push $self->{troubles}->@*, $trouble;
    $work->();
    $trouble->{end} = time;
    return;
}

# Until clients have made some more attempts, or have all come to stand.
sub meanwhile($self, $more, $seconds) {
    my $from = $self->{progress}->();
    eval { wait_for(sub { $self->{progress}->() >= $from + $more }, $seconds / patience(), 'more attempts') };
    return;
}

sub do_kill_worker($self, $host, $worker) {
    $self->fault(kill_worker => $host);
    $self->{world}->host($host)->kill9_worker($worker);
}
sub do_kill_host($self, $number) {
    my $host = $self->{world}->host($number);
    $self->fault(kill_host => $number);
    $host->kill9;
    $self->meanwhile(10, 1);
    $host->start;
    return;
}
sub do_reload($self, $number) {
    $self->fault(reload => $number);
    $self->{world}->host($number)->reload;
}
sub do_zone($self, $number) {
    my $host = $self->{world}->host($number);
    my $size = $self->{zones}{$number}++ % 2 ? '8m' : '6m';
    $self->fault(reload => $number);
    $host->write_config($host->{conf}, BILLING => $host->{vars}{BILLING} =~ s/main \d+m/main $size/r);
    $host->reload;
    return;
}
sub do_kill_redis($self) { $self->{world}->redis->kill9; $self->meanwhile(30, 1); $self->{world}->redis->start }
sub do_flush_redis($self) { $self->{world}->redis->flushall }
sub do_stop_redis($self) { $self->{world}->redis->pause; $self->meanwhile(30, 1); $self->{world}->redis->resume }
sub do_stop_worker($self, $host, $worker) {
    my $pid = ($self->{world}->host($host)->workers)[$worker] // return;
    kill 'STOP', $pid;
    $self->meanwhile(30, 1);
    kill 'CONT', $pid;
    return;
}
sub do_kill_postgres($self) {
    my $world = $self->{world};
    $self->fault('postgres');
    $self->trouble(sub { delete $world->{dbh}; $world->db->kill9; $self->meanwhile(20, 1); $world->db->start });
    return;
}
sub do_stop_postgres($self) {
    $self->fault('postgres');
    $self->trouble(sub { $self->{world}->db->pause; $self->meanwhile(30, 3); $self->{world}->db->resume });
    return;
}
sub do_cut_postgres($self) {
    $self->fault('postgres');
    $self->trouble(sub {
        $self->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'});
    });
    return;
}
sub do_lose_answers($self, $host) {
    $self->fault('postgres');
    $self->trouble(sub { $self->{proxies}[$host]->lose_answers; $self->meanwhile(40, 1.5); $self->{proxies}[$host]->cut });
    return;
}

# --- the end

# Everything comes to rest; then the hosts stop, and what they held is back.
sub rest($self, $check) {
    my $world = $self->{world};
    for my $host ($world->hosts) {
        wait_for(sub { $host->get('/open')->status == 204 }, 20, "$host->{name} answers");
        for my $location (qw(one logo)) {    # another account: both stores are reached again
            wait_for(sub { $host->get("/$location/x", Authorization => 'Bearer test:probe')->status =~ /^(?:200|402)$/ }, 30, "$host->{name} decides");
        }
    }
    $world->stripe->wait_delivered(within => 30);
    wait_for(sub {    # a worker that was killed over one has it for a minute; that is over here
        $world->sql(q{UPDATE billing.webhook_events SET next_attempt_at = now()
            WHERE status IN ('received', 'processing') AND next_attempt_at > now() + interval '2 s'});
        !$world->sql(q{SELECT 1 FROM billing.webhook_events WHERE status IN ('received', 'processing')});
    }, 30, 'events are processed');
    wait_for(sub { !$world->sql('SELECT 1 FROM billing.snapshot_dirty') }, 30, 'changes are published');
    my $held = sub { ($world->sql('SELECT count(*) AS n FROM billing.credit_holds'))[0]{n} };
    if (!eval { wait_for(sub { $held->() == 0 }, 2, 'settled') }) {    # of workers that were killed
        $world->sql(q{UPDATE billing.credit_holds SET expires_at = clock_timestamp() RETURNING 1});
        eval { wait_for(sub { $held->() == 0 }, 15, 'swept') };
    }
    for my $number (0, 1) {
        my $page = Billing::Metrics->parse($world->host($number)->get('/metrics')->body);
        $self->{forfeited}[$number] = $page->value('billing_quota_forfeited_tokens_total') // 0;
    }
    $check->agree;
    $check->spend_all if !grep { $_->{kind} ne 'reload' } $self->{faults}->@*;
    $_->finish for $world->hosts;
    $check->compare;
    $world->may_forfeit($_ => $check->forfeits_of_all($_)) for @accounts;
    return;
}

1;
