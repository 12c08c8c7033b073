# Reads Prometheus' text format, version 0.0.4, and forgives nothing: what promtool would complain of, and what it overlooks.
#
#   my $page = Billing::Metrics->parse($response->body);
#   is $page->value('billing_decisions_total', decision => 'deny', reason => 'plan'), 1, '...';
package Billing::Metrics;
use v5.36;

# Dies with the first line that is wrong.
sub parse($class, $text) {
    my $self = bless {type => {}, value => {}}, $class;
    die "the page does not end with a newline\n" if $text !~ /\n\z/;
    my ($help, $family, @wrong) = ('', '');
    for my $line (split /\n/, $text) {
        if ($line =~ /^# HELP ([a-z_]+) (\S.*)$/) {
            die "$line: a family twice\n" if $self->{type}{$1};
            $help = $1;
        } elsif ($line =~ /^# TYPE ([a-z_]+) (counter|gauge)$/) {
            ($family, my $type) = ($1, $2);
            die "$line: without its HELP\n" if $family ne $help;
            die "$line: counters end with _total, and nothing else does\n" if ($type eq 'counter') != ($family =~ /_total$/);
            die "$line: a unit that is no base unit, or a type, in the name\n"
                if $family =~ /_(?:milliseconds|minutes|hours|days|kilobytes|megabytes|counter|gauge|count|sum|bucket)(?:_|$)/;
            $self->{type}{$family} = $type;
        } elsif ($line =~ /^([a-z_]+)(?:\{(.+)\})? (\d+(?:\.\d+)?)$/) {
            my ($name, $labels, $value) = ($1, $2 // '', $3);
            die "$line: outside of its family\n" if $name ne $family;
            my %label;
            for (split /,/, $labels) {
                my ($key, $is) = /^([a-z]+)="([A-Za-z0-9_.]+)"$/ or die "$line: a label that cannot be read\n";
                die "$line: a label twice\n" if exists $label{$key};
                $label{$key} = $is;
            }
            my $key = key($name, %label);
            die "$line: a sample twice\n" if exists $self->{value}{$key};
            $self->{value}{$key} = $value;
        } else {
            die "$line: neither HELP, TYPE nor a sample\n";
        }
    }
    my %seen = map { /^([a-z_]+)/ ? ($1 => 1) : () } keys $self->{value}->%*;
    $seen{$_} or die "$_: a family without a sample\n" for sort keys $self->{type}->%*;
    return $self;
}

sub key($name, %label) { join ' ', $name, map { "$_=$label{$_}" } sort keys %label }

# undef where there is none.
sub value($self, $name, %label) { $self->{value}{key($name, %label)} }
sub type($self, $name) { $self->{type}{$name} }
sub samples($self) { sort keys $self->{value}->%* }

# What has grown since an earlier page, of these families: {"name label=value" => by how much}.
sub since($self, $before, @families) {
    my %grown;
    for my $key ($self->samples) {
        my ($family) = split / /, $key;
        next if !grep { $_ eq $family } @families;
        my $by = $self->{value}{$key} - ($before->{value}{$key} // 0);
        $grown{$key} = $by if $by;
    }
    return \%grown;
}

1;
