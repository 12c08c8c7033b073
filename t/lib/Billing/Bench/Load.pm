# The load generator of script/bench, which is the application too (t/bench/load.cpp and its headers): compiled when it has changed, started once, asked
# for one run after the other.
package Billing::Bench::Load;
use v5.36;
use Billing::Bench ();
use Billing::Nginx ();
use Billing::Process qw(build new_directory root);
use IPC::Open2 qw(open2);
use JSON::PP ();

sub new($class) {
    my ($source, $program) = (root() . '/t/bench/load.cpp', build() . '/bench-load');
    if (!-e $program || grep { -M $program > -M $_ } glob root() . '/t/bench/*.[ch]pp') {
        system('g++', qw(-std=c++20 -O2 -Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor -Werror -o), $program, $source, '-lcrypto') == 0
            or die "$source does not compile\n";
    }
    my $self = bless {directory => new_directory()}, $class;
    $self->{pid} = open2($self->{out}, $self->{in}, $program, $self->application, $self->yes);
    Billing::Process::wait_for(sub { -S $self->yes }, 10, 'the application listens');
    return $self;
}

sub application($self) { "$self->{directory}/app.sock" }
sub yes($self) { "$self->{directory}/yes.sock" }

# One run against this variant's location: {requests, seconds, cpu => of the host's worker, own => of load and application, p50, p99 in us,
# all => requests, with those before measuring began}. Dies when one answer was not as it must be. Words: see load.cpp.
sub run($self, $host, $variant, %words) {
    my $request = "$self->{directory}/$variant->{name}.request";
    Billing::Nginx::write_file($request, Billing::Bench::request_text("/$variant->{name}/x", ($variant->{prefix} // $variant->{name}) . '-#'));
    my ($worker) = $host->workers;
    return $self->order("/$variant->{name}/", port => $host->port, request => $request, status => $variant->{status} // 200, pid => $worker, %words);
}

# One run of events, all of which must be answered with 200; latencies in closed loop too.
sub events($self, $name, %words) { $self->order($name, status => 200, timed => 1, %words) }

sub order($self, $name, %words) {
    $self->{in}->say(join ' ', map { "$_=$words{$_}" } sort keys %words);
    $self->{in}->flush;
    my $line = readline($self->{out}) // die "bench-load has ended\n";
    my $run = JSON::PP::decode_json($line);
    die "$name: $run->{wrong} wrong answers, $run->{errors} errors: $run->{complaint}\n" if $run->{wrong} || $run->{errors} || !$run->{requests};
    $run->{rate} = $run->{requests} / $run->{seconds};
    $run->{each} = 1e6 * $run->{cpu} / $run->{requests};
    $run->{busy} = $run->{cpu} / $run->{seconds};
    return $run;
}

sub finish($self) {
    close $self->{in};
    waitpid $self->{pid}, 0;
    return;
}

1;
