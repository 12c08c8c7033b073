# A steady load from a process of its own: begun before a test does something to a host, ended after it.
#
#   my $load = Billing::Load->begin($host, {path => '/api/x', headers => {...}, status => 200}, ...);
#   $load->go_on(50);         # not before so many more answers
#   my $seen = $load->end;    # {all => how many, wrong => ['/api/x: 502', ...], right => [how many of each kind]}
package Billing::Load;
use v5.36;
use Billing::Client qw(requests);
use Billing::Process qw(new_directory slurp wait_for);
use JSON::PP ();
use POSIX ();
use Time::HiRes ();

sub begin($class, $host, @kinds) {
    my $file = new_directory() . '/seen';
    my $address = $host->address;
    my $parent = $$;
    my $pid = fork // die "fork: $!\n";
    if (!$pid) {
        my $stop = 0;
        local $SIG{TERM} = sub { $stop = 1 };
        my %seen = (all => 0, wrong => [], right => [(0) x @kinds]);
        until ($stop || getppid != $parent) {
            my @answers = requests(3, map { {address => $address, method => 'GET', $_->%*} } @kinds);
            for my $index (0 .. $#kinds) {
                my $answer = $answers[$index];
                $seen{all}++;
                $answer->status == $kinds[$index]{status}
                    ? $seen{right}[$index]++
                    : push $seen{wrong}->@*, "$kinds[$index]{path}: " . ($answer->status || $answer->failure);
            }
            note_down($file, \%seen);
            Time::HiRes::sleep(0.002);
        }
        note_down($file, \%seen);
        POSIX::_exit(0);
    }
    my $self = bless {pid => $pid, file => $file}, $class;
    wait_for(sub { -s $file }, 30, 'the load has begun');
    return $self;
}

sub note_down($file, $seen) {
    open my $out, '>', "$file.new" or die "$file: $!\n";
    print $out JSON::PP->new->encode($seen);
    close $out or die "$file: $!\n";
    rename "$file.new", $file or die "$file: $!\n";
    return;
}

sub so_far($self) { JSON::PP->new->decode(slurp($self->{file}))->{all} }

# Until so many more answers have come.
sub go_on($self, $count) {
    my $until = $self->so_far + $count;
    wait_for(sub { $self->so_far >= $until }, 30, "$count more answers");
    return;
}

sub end($self) {
    kill 'TERM', $self->{pid};
    waitpid $self->{pid}, 0;
    return JSON::PP->new->decode(slurp($self->{file}));
}

1;
